// A tracker over a Client: -DLINK=Mqtt or Http, -DJOURNAL, -DKEY, -DCONSENT.
#include "serial_client.h"
#include <Spoorway.h>

static const spoorway::Template TEMPLATES[] PROGMEM = {spoorway::ENVIRONMENT};
#ifdef JOURNAL
typedef spoorway::Journal<spoorway::EepromCells, 24, 64> Store;
static Store store = Store(spoorway::EepromCells());
#elif defined(CONSENT)
typedef spoorway::Consent<spoorway::Queue<120> > Store;
static Store store;
#else
typedef spoorway::Queue<120> Store;
static Store store;
#endif
typedef spoorway::LINK<SerialClient> Link;
#ifdef KEY
static const uint8_t key[32] = {KEY};
static Link link_(wire, "127.0.0.1", 80);
static spoorway::Tracker<Link, Store, spoorway::Json, spoorway::Hmac> tracker(link_, store, spoorway::Hmac(key));
#elif defined(PASSWORD)
#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)
static Link link_(wire, "127.0.0.1", 1883, "uno-1", TEXT(PASSWORD));
static spoorway::Tracker<Link, Store> tracker(link_, store);
#else
static Link link_(wire, "127.0.0.1", 1883);
static spoorway::Tracker<Link, Store> tracker(link_, store);
#endif

#ifdef JOURNAL
#define ROOM true
#else
#define ROOM (store.size_of_all() < 60) // a gateway that is slow must not make the sketch lose events: those are told apart by their gaps
#endif
#ifdef MEASURE
volatile uint32_t longest_us; // for whoever looks into the RAM
#endif

static const char *const ABOUT[] = {"aid", "bench", 0};

void setup() {
  Serial.begin(115200);
  tracker.begin("uno-1", TEMPLATES, 1, ABOUT, 1);
}

void loop() {
  static uint32_t last;
#ifdef CONSENT
  if (millis() == 60000) tracker.opt_out();
  if (millis() == 70000) tracker.opt_in();
#endif
  if (ROOM && millis() - last >= 100) {
    last = millis();
    tracker.track(0, 2150, 452, 10132);
  }
#ifdef MEASURE
  uint32_t before = micros();
  tracker.loop();
  uint32_t took = micros() - before;
  if (took > longest_us) longest_us = took;
#else
  tracker.loop();
#endif
}

// What the sizes and the board tests are built of: a tracker over Serial. -D chooses its parts.
#include <Spoorway.h>

#ifndef FORMAT
#define FORMAT Compact
#endif
#ifndef STORE
#define STORE Queue<128>
#endif

static const spoorway::Template TEMPLATES[] PROGMEM = {spoorway::ENVIRONMENT};
#ifdef JOURNAL
typedef spoorway::Journal<spoorway::EepromCells, 24, 64> Store;
static Store store = Store(spoorway::EepromCells());
#else
static spoorway::Queue<128> store;
typedef spoorway::Queue<128> Store;
#endif
static spoorway::SerialLine<HardwareSerial> line(Serial);
#ifdef KEY
static const uint8_t key[32] = {KEY};
static spoorway::Tracker<spoorway::SerialLine<HardwareSerial>, Store, spoorway::FORMAT, spoorway::Hmac> tracker(line, store, spoorway::Hmac(key));
#else
static spoorway::Tracker<spoorway::SerialLine<HardwareSerial>, Store, spoorway::FORMAT> tracker(line, store);
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

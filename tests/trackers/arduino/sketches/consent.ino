// A board whose user opts out, -DOUT_MS=900, or in, -DIN; without them it goes on as it is.
#include <Spoorway.h>

static const spoorway::Template TEMPLATES[] PROGMEM = {spoorway::ENVIRONMENT};
typedef spoorway::Consent<spoorway::Journal<spoorway::EepromCells, 24, 64> > Store;
static Store store = Store(spoorway::Journal<spoorway::EepromCells, 24, 64>(spoorway::EepromCells()));
static spoorway::SerialLine<HardwareSerial> line(Serial);
static spoorway::Tracker<spoorway::SerialLine<HardwareSerial>, Store> tracker(line, store);
static const char *const ABOUT[] = {"aid", "bench", 0};

struct {
  uint16_t waited, waits, refused; // records before and after opt_out(), events that were not taken
} volatile known; // for whoever looks into the RAM

void setup() {
  Serial.begin(115200);
  tracker.begin("uno-1", TEMPLATES, 1, ABOUT);
#ifdef IN
  tracker.opt_in();
#endif
}

void loop() {
  static uint32_t last;
  if (millis() - last >= 100) {
    last = millis();
    known.refused += tracker.track(0, 2150, 452, 10132) == spoorway::OPTED_OUT;
  }
#ifdef OUT_MS
  if (!store.closed() && millis() >= OUT_MS) {
    known.waited = store.waiting();
    tracker.opt_out();
  }
#endif
  known.waits = store.waiting();
  tracker.loop();
}

// Starts of a board whose user opts out: the first tracks and opts out after OUT_MS, the second tries to go on, the third opts in.
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
  if (tracker.boot == 3) tracker.opt_in();
}

void loop() {
  static uint32_t last;
  static bool out;
  if (millis() - last >= 100) {
    last = millis();
    known.refused += tracker.track(0, 2150, 452, 10132) == spoorway::OPTED_OUT;
  }
  if (tracker.boot == 1 && !out && millis() >= OUT_MS) {
    known.waited = store.waiting();
    out = tracker.opt_out() == 0;
  }
  known.waits = store.waiting();
  tracker.loop();
}

// Events without end into the EEPROM and over Serial; what it knows to be stored lies in RAM for whoever cuts the power.
#include <Spoorway.h>

static const spoorway::Template TEMPLATES[] PROGMEM = {spoorway::ENVIRONMENT};
typedef spoorway::Journal<spoorway::EepromCells, 24, 64> Store;
static Store store = Store(spoorway::EepromCells());
static spoorway::SerialLine<HardwareSerial> line(Serial);
static spoorway::Tracker<spoorway::SerialLine<HardwareSerial>, Store, spoorway::FORMAT> tracker(line, store);
static const char *const ABOUT[] = {"aid", "cuts", 0};

struct {
  uint32_t boot, stored, refusals;
  uint32_t refused[32];
} volatile known;

void setup() {
  Serial.begin(115200);
  tracker.begin("uno-cuts", TEMPLATES, 1, ABOUT);
  known.boot = tracker.boot;
}

void loop() {
  static uint32_t last;
  if (millis() - last >= EVERY_MS && known.refusals < 32 && tracker.sequence < MOST) {
    last = millis();
    if (tracker.track(0, (long)(tracker.boot % 4000), (long)(tracker.sequence % 100), 10132) < 0) known.refused[known.refusals++] = tracker.sequence;
  }
  known.stored = store.stored();
  tracker.loop();
}

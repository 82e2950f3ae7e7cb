// A board that gets its name and its key from the cable: spoorway flash uno trackers/arduino/examples/NamedByCable
#include <SpoorwayIdentity.h>

static const spoorway::Template TEMPLATES[] PROGMEM = {spoorway::STRUCTURED};

// needs: avr
typedef spoorway::Identity<spoorway::EepromCells> Identity;
typedef spoorway::Journal<spoorway::EepromCells, 64, 96> Journal;
static Identity identity;
static Journal journal = Journal(spoorway::EepromCells(Identity::BYTES));
static spoorway::SerialLine<> line(Serial);
static spoorway::Tracker<spoorway::SerialLine<>, Journal, spoorway::Query, spoorway::Hmac> tracker(line, journal, spoorway::Hmac(identity.key));
static const char *const ABOUT[] = {"aid", "cable", 0};
static bool named;

void setup() {
  pinMode(LED_BUILTIN, OUTPUT);
  Serial.begin(115200);
  named = identity.begin(Serial) && tracker.begin(identity.name, TEMPLATES, 1, ABOUT) >= 0;
}

void loop() {
  static uint32_t last, every;
  if (!named) return;
  if (millis() - last >= every) {
    last = millis();
    every = 60000;
    tracker.track_structured(0, "board", "here");
  }
  tracker.loop();
}

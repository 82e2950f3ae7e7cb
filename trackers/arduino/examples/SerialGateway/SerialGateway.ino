// A board that keeps its events in EEPROM until they are on disk, and signs each line.
#include <Spoorway.h>

enum { AIR, HEALTH };
static const spoorway::Template TEMPLATES[] PROGMEM = {spoorway::ENVIRONMENT, spoorway::QUEUE_HEALTH};

// needs: avr
typedef spoorway::Journal<spoorway::EepromCells, 32, 96> Journal;
static Journal journal = Journal(spoorway::EepromCells(192));  // before it `spoorway flash` keeps the board's name: see NamedByCable
static spoorway::SerialLine<> line(Serial);

// `spoorway device add shed-1` prints the key.
static const uint8_t KEY[32] = {0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f,
                                0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f};
static spoorway::Tracker<spoorway::SerialLine<>, Journal, spoorway::Compact, spoorway::Hmac> tracker(line, journal, spoorway::Hmac(KEY));

void setup() {
  Serial.begin(115200);
  if (tracker.begin("shed-1", TEMPLATES, 2) < 0 && line.idle()) Serial.println(F("the EEPROM keeps nothing"));
}

void loop() {
  static uint32_t last, count;
  if (millis() - last >= 60000) {
    last = millis();
    int celsius_times_100 = analogRead(A0) * 5;  // your sensor
    tracker.track(AIR, celsius_times_100, spoorway::Absent(), spoorway::Absent());
    if (++count % 60 == 0) tracker.track_health(HEALTH);
  }
  tracker.loop();
}

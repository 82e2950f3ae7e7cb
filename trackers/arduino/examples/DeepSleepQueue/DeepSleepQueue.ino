// An ESP32 that wakes up every ten minutes, keeps its readings in RTC memory, and sends them over HTTP when it can.
// needs: the ESP32 core
#include <Spoorway.h>
#include <WiFi.h>

static const spoorway::Template TEMPLATES[] PROGMEM = {spoorway::BATTERY};

// Cells that outlive deep sleep, not a power cut: 2,048 bytes of RTC memory.
RTC_DATA_ATTR static uint8_t rtc[2048];
struct RtcCells {
  uint16_t size() const { return sizeof rtc; }
  bool ready() const { return true; }
  uint8_t read(uint16_t i) const { return rtc[i]; }
  void write(uint16_t i, uint8_t value) { rtc[i] = value; }
  void clear(uint16_t i) { rtc[i] = 0; }
  void settle() {}
};
typedef spoorway::Journal<RtcCells, 32, 64> Journal;
static Journal journal = Journal(RtcCells());
static WiFiClient wire;
static spoorway::Http<WiFiClient> http(wire, "192.168.1.10", 8080);
static spoorway::Tracker<spoorway::Http<WiFiClient>, Journal> tracker(http, journal);
static const char *const ABOUT[] = {"aid", "field", 0};

void setup() {
  tracker.begin("field-7", TEMPLATES, 1, ABOUT);
  tracker.track(0, 3712, 64, 0);
  WiFi.begin("network", "password");
}

void loop() {
  tracker.loop();
  if (millis() > 15000 || (!journal.waiting() && millis() > 2000)) ESP.deepSleep(600000000ULL);
}

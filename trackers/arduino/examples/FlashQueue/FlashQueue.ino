// An ESP32 or ESP8266 that keeps its readings in flash until they are on disk, over any number of restarts, and sends them over HTTP.
// A button on GPIO 0 opts out: what waits is erased, and nothing is kept or sent until it is pressed again.
// needs: the ESP32 core
#include <LittleFS.h>
#include <SpoorwayFiles.h>
#include <WiFi.h>

static const spoorway::Template TEMPLATES[] PROGMEM = {spoorway::ENVIRONMENT};

typedef spoorway::Consent<spoorway::Files<> > Store;
static Store store = Store(spoorway::Files<>(LittleFS));
static WiFiClient wire;
static spoorway::Http<WiFiClient> http(wire, "192.168.1.10", 8080);
static spoorway::Tracker<spoorway::Http<WiFiClient>, Store> tracker(http, store);
static const char *const ABOUT[] = {"aid", "garden", 0};

void setup() {
  pinMode(0, INPUT_PULLUP);
  LittleFS.begin();
  WiFi.begin("network", "password");
  tracker.begin("garden-3", TEMPLATES, 1, ABOUT, micros());  // the number: its first boot id, should flash ever forget the last one
}

void loop() {
  static uint32_t last;
  static bool pressed;
  if (!digitalRead(0) != pressed) {
    pressed = !pressed;
    if (pressed && store.closed())
      tracker.opt_in();
    else if (pressed)
      tracker.opt_out();
  }
  if (millis() - last >= 60000) {
    last = millis();
    tracker.track(0, 2157, 452, spoorway::Absent());
  }
  tracker.loop();
}

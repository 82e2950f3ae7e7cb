// Blinks, and tells so over USB. On the computer: spoorway run --serial '/dev/ttyACM*' '/dev/ttyUSB*'
#include <Spoorway.h>

static const spoorway::Template TEMPLATES[] PROGMEM = {spoorway::STRUCTURED};

static spoorway::Queue<256> queue;
static spoorway::SerialLine<> line(Serial);
static spoorway::Tracker<spoorway::SerialLine<>, spoorway::Queue<256> > tracker(line, queue);
static const char *const ABOUT[] = {"aid", "blink", 0};

void setup() {
  pinMode(LED_BUILTIN, OUTPUT);
  Serial.begin(115200);
  tracker.begin("uno-1", TEMPLATES, 1, ABOUT, micros());  // a boot id of its own kind: this board keeps none
}

void loop() {
  static uint32_t last;
  static bool on;
  if (millis() - last >= 5000) {
    last = millis();
    on = !on;
    digitalWrite(LED_BUILTIN, on);
    tracker.track_structured(0, "led", on ? "on" : "off");
  }
  tracker.loop();
}

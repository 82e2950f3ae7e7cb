// Temperature and humidity over Ethernet and MQTT, with a last will. spoorway run --mqtt 0.0.0.0:1883
// needs: the Ethernet library
#include <Ethernet.h>
#include <Spoorway.h>

static const spoorway::Template TEMPLATES[] PROGMEM = {spoorway::ENVIRONMENT};

static EthernetClient wire;
static spoorway::Queue<160> queue;
// Name and password: `spoorway device add greenhouse --kind password`
static spoorway::Mqtt<EthernetClient> mqtt(wire, "192.168.1.10", 1883, "greenhouse", "PASSWORD");
static spoorway::Tracker<spoorway::Mqtt<EthernetClient>, spoorway::Queue<160> > tracker(mqtt, queue);
static const char *const ABOUT[] = {"aid", "greenhouse", 0};

void setup() {
  static byte mac[] = {0x02, 0, 0, 0, 0, 1};
  Ethernet.begin(mac, IPAddress(192, 168, 1, 20));
  tracker.begin("greenhouse", TEMPLATES, 1, ABOUT, micros());
}

void loop() {
  static uint32_t last;
  if (millis() - last >= 30000) {
    last = millis();
    float celsius = 21.57, humidity = 45.2;  // your sensor
    tracker.track(0, spoorway::fixed(celsius, 2), spoorway::fixed(humidity, 1), spoorway::Absent());
  }
  tracker.loop();
}

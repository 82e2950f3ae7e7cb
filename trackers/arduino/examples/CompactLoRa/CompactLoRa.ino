// Frames of about 30 bytes, the device's name included, over a radio without answers: each is sent three times, its copies are stored once.
// needs: the LoRa library
#include <LoRa.h>
#include <Spoorway.h>

static const spoorway::Template TEMPLATES[] PROGMEM = {spoorway::ENVIRONMENT};

// A link of your own: step() is called by tracker.loop(), and says when a message may be forgotten.
struct Radio {
  uint8_t copies;
  static void emit(void *, uint8_t c) { LoRa.write(c); }
  template <class Tracker> void step(Tracker &tracker) {
    if (!tracker.due()) return;
    spoorway::Out out(emit, this);
    LoRa.beginPacket();
    tracker.body(out);
    LoRa.endPacket();
    if (++copies < 3) {
      tracker.again();
      return tracker.rest(5000);
    }
    copies = 0;
    tracker.acked();
  }
};

static Radio radio;
static spoorway::Queue<160> queue;
static spoorway::Tracker<Radio, spoorway::Queue<160>, spoorway::NamedCompact> tracker(radio, queue);

void setup() {
  LoRa.begin(868E6);
  tracker.begin("node-7", TEMPLATES, 1, 0, micros());
}

void loop() {
  static uint32_t last;
  if (millis() - last >= 600000UL) {
    last = millis();
    tracker.track(0, 2157, 452, 10132);
  }
  tracker.loop();
}

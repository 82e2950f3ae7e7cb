// What the sizes are counted from: a Client and nothing that tracks.
#include "serial_client.h"
void setup() {
  Serial.begin(115200);
  wire.connect("127.0.0.1", 1883);
}
void loop() {
  static uint32_t last;
  static uint8_t bytes[4];
  if (millis() - last >= 100) {
    last = millis();
    wire.write(bytes, 4);
  }
  if (wire.available()) wire.write(wire.read());
}

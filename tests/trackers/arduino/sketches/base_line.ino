// What the sizes are counted from: the same board and port without the tracker.
void setup() { Serial.begin(115200); }

void loop() {
  static uint32_t last;
  if (millis() - last >= 100) {
    last = millis();
    if (Serial.availableForWrite() > 1) Serial.write((uint8_t)last);
  }
  if (Serial.available()) Serial.write(Serial.read());
}

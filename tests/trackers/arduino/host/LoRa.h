/* The names that an example uses of the LoRa library. */
#include <Arduino.h>
struct LoRaClass {
  int begin(long);
  void beginPacket();
  void endPacket();
  void write(uint8_t);
};
extern LoRaClass LoRa;

// A Client whose connection is the serial port: what is at its other end carries the bytes to a socket.
#include <Client.h>
class SerialClient : public Client {
 public:
  int connect(IPAddress, uint16_t) { return 1; }
  int connect(const char *, uint16_t) {
    while (Serial.read() >= 0);
    for (uint8_t i = 4; i; i--) Serial.write((uint8_t)0xFF); /* for the other end: a new connection */
    return 1;
  }
  size_t write(uint8_t c) { return Serial.write(c); }
  size_t write(const uint8_t *bytes, size_t n) { return Serial.write(bytes, n); }
  int available() { return Serial.available(); }
  int read() { return Serial.read(); }
  int read(uint8_t *bytes, size_t n) { return Serial.readBytes(bytes, n); }
  int peek() { return Serial.peek(); }
  void flush() {}
  void stop() {}
  uint8_t connected() { return 1; }
  operator bool() { return true; }
};
static SerialClient wire;

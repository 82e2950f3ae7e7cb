/* The names that an example uses of the Ethernet library. */
#include <Arduino.h>
class EthernetClient : public Client {
 public:
  int connect(IPAddress, uint16_t);
  int connect(const char *, uint16_t);
  size_t write(uint8_t);
  size_t write(const uint8_t *, size_t);
  int available();
  int read();
  int read(uint8_t *, size_t);
  int peek();
  void flush();
  void stop();
  uint8_t connected();
  operator bool();
};
struct EthernetClass { void begin(byte *, IPAddress); };
extern EthernetClass Ethernet;

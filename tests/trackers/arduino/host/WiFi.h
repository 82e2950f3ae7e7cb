/* The names that an example uses of the WiFi library. */
#include <Arduino.h>
class WiFiClient : public Client {
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
#define RTC_DATA_ATTR
struct WiFiClass { void begin(const char *, const char *); };
extern WiFiClass WiFi;
struct EspClass { void deepSleep(uint64_t); };
extern EspClass ESP;

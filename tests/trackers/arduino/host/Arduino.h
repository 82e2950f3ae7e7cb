/* What the library asks of an Arduino core, for a program on the desk: the classes as the cores declare them, time that stands still
   unless the test moves it. */
#ifndef ARDUINO_H
#define ARDUINO_H
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define PROGMEM
#define PSTR(s) (s)
#define F(s) reinterpret_cast<const __FlashStringHelper *>(s)
#define strlen_P strlen
#define memcpy_P memcpy
#define pgm_read_byte(p) (*(const uint8_t *)(p))
#define pgm_read_dword(p) (*(const uint32_t *)(p))
#define pgm_read_ptr(p) (*(const void *const *)(p))
class __FlashStringHelper;

unsigned long millis();
unsigned long micros();
void yield();

class Print {
 public:
  virtual ~Print() {}
  virtual size_t write(uint8_t) = 0;
  virtual size_t write(const uint8_t *bytes, size_t n) {
    for (size_t i = 0; i < n; i++) write(bytes[i]);
    return n;
  }
  virtual int availableForWrite() { return 0; }
};
class Stream : public Print {
 public:
  virtual int available() = 0;
  virtual int read() = 0;
  virtual int peek() = 0;
};
class IPAddress;
class Client : public Stream {
 public:
  virtual int connect(IPAddress, uint16_t) = 0;
  virtual int connect(const char *host, uint16_t port) = 0;
  virtual int read(uint8_t *, size_t) = 0;
  virtual void flush() = 0;
  virtual void stop() = 0;
  virtual uint8_t connected() = 0;
  virtual operator bool() = 0;
  using Stream::read;
};
class IPAddress {
 public:
  IPAddress() {}
  IPAddress(int, int, int, int) {}
};

/* For examples that are only looked at by the compiler. */
typedef uint8_t byte;
enum { OUTPUT, INPUT_PULLUP, LED_BUILTIN, A0 };
void pinMode(int, int);
void digitalWrite(int, int);
int digitalRead(int);
int analogRead(int);
class HardwareSerial : public Stream {
 public:
  void begin(long);
  int available();
  int read();
  int peek();
  size_t write(uint8_t);
};
extern HardwareSerial Serial;
#endif

/* Out: where a message is written byte by byte, into nothing (to count), a sum, or a port: no message is ever held in memory. */
#ifndef SPOORWAY_WRITE_H
#define SPOORWAY_WRITE_H

namespace spoorway {

static const uint32_t POWERS[10] PROGMEM = {1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000, 1000000000};

struct Out {
  void (*emit)(void *, uint8_t);
  void *self;

  static void count(void *n, uint8_t) { ++*static_cast<uint16_t *>(n); }
  constexpr Out(void (*e)(void *, uint8_t) = 0, void *s = 0) : emit(e), self(s) {}

  void put(uint8_t c) { emit(self, c); }
  void flash(const char *p) {
    while (uint8_t c = pgm_read_byte(p++)) put(c);
  }
  void text(const char *p) {
    while (uint8_t c = (uint8_t)*p++) put(c);
  }
  static SPOORWAY_ONCE uint8_t digit(uint8_t c) { return c + (c < 10 ? '0' : 'a' - 10); }
  void hex(uint8_t c) {
    put(digit(c >> 4));
    put(digit(c & 15));
  }
  void four(uint32_t n) { /* bytes, the lowest first */
    for (uint8_t i = 4; i--; n >>= 8) put((uint8_t)n);
  }
  /* Seven bits in a byte, the lowest first; a set high bit says that another byte follows. */
  SPOORWAY_ONCE void sevens(uint32_t n) {
    for (; n > 0x7F; n >>= 7) put((uint8_t)n | 0x80);
    put((uint8_t)n);
  }
  /* A number in fewer bytes of flash, and slower: for those that have no others. */
  SPOORWAY_ONCE void digits(uint32_t n) {
    uint8_t rest = 0;
    for (uint8_t i = 32; i--;) {
      rest <<= 1;
      if ((int32_t)n < 0) rest++;
      n <<= 1;
      if (rest >= 10) {
        rest -= 10;
        n |= 1;
      }
    }
    if (n) digits(n);
    put('0' + rest);
  }
  /* n / 10^point, with as many digits behind the point. By subtraction: faster than the division AVRs do not have, and smaller. */
  void number(uint32_t n, uint8_t point = 0) {
    bool begun = false;
    for (uint8_t left = 10; left--;) {
      uint32_t power = pgm_read_dword(POWERS + left);
      uint8_t c = '0';
      for (; n >= power; n -= power) c++;
      if (c != '0' || left <= point) begun = true;
      if (!begun) continue;
      put(c);
      if (left && left == point) put('.');
    }
  }
};

}  // namespace spoorway
#endif

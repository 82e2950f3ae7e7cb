/* Writes JSON and query strings byte by byte, into nothing (to count), a sum, or a port: no message is ever held in memory.

   Depth is how many texts a byte lies within: 0 the message itself, 1 a parameter's value, 2 a text in the JSON of such a value. */
#ifndef SPOORWAY_WRITE_H
#define SPOORWAY_WRITE_H

namespace spoorway {

/* Where bytes go: those from `from` up to `until` to emit, the others only into the count `at`. */
struct Out {
  void (*emit)(void *, uint8_t);
  void *self;
  uint16_t at, from, until;
  Out() : emit(0), self(0), at(0), from(0), until(0) {} /* only counts */
  Out(void (*e)(void *, uint8_t), void *s, uint16_t f = 0, uint16_t u = 0xFFFF) : emit(e), self(s), at(0), from(f), until(u) {}
  void put(uint8_t c) {
    if (at >= from && at < until) emit(self, c);
    at++;
  }
  void flash(const char *p) {
    while (uint8_t c = pgm_read_byte(p++)) put(c);
  }
  void text(const char *p) {
    while (*p) put((uint8_t)*p++);
  }
  void hex(uint8_t c) {
    digit(c >> 4);
    digit(c & 15);
  }
  void digit(uint8_t c) { put(c + (c < 10 ? '0' : 'a' - 10)); }
  template <class N> void number(N n) {
    char digits[sizeof(N) > 4 ? 20 : 10];
    uint8_t i = 0;
    do {
      digits[i++] = (char)(n % 10);
      n /= 10;
    } while (n);
    while (i) put('0' + digits[--i]);
  }
};

/* In literals: \1 = the vendor most schemas have, \2 = the way to a schema's version. */
static const char VENDOR[] PROGMEM = "iglu:com.snowplowanalytics.snowplow/";
static const char VERSION_OF[] PROGMEM = "/jsonschema/1-0-";

template <bool QUERY> struct Writer {
  Out &out;
  bool begun;
  explicit Writer(Out &o) : out(o), begun(false) {}

  void put(uint8_t c, uint8_t depth) {
    if (!depth) {
      out.put(c);
    } else if (QUERY && depth == 1) {
      uint8_t letter = c | 0x20;
      if ((c >= '0' && c <= '9') || (letter >= 'a' && letter <= 'z' && c < 0x80) || c == '-' || c == '.' || c == '_' || c == '~') {
        out.put(c);
      } else {
        out.put('%');
        out.hex(c);
      }
    } else {
      depth--;
      if (c == '"' || c == '\\') {
        put('\\', depth);
      } else if (c < 0x20) {
        put('\\', depth);
        put('u', depth);
        put('0', depth);
        put('0', depth);
        put('0' + (c >> 4), depth);
        c &= 15;
        c += c < 10 ? '0' : 'a' - 10;
      }
      put(c, depth);
    }
  }
  void text(const char *p, uint8_t depth) {
    while (*p) put((uint8_t)*p++, depth);
  }
  /* Up to the end, or to a character that ends a word of a template. */
  const char *flash(const char *p, uint8_t depth) {
    uint8_t c;
    while ((c = pgm_read_byte(p)) > ' ') p++, put(c, depth);
    return p;
  }
  void literal(const char *p, uint8_t depth) {
    while (uint8_t c = pgm_read_byte(p++)) {
      if (c < 3)
        flash(c == 1 ? VENDOR : VERSION_OF, depth);
      else
        put(c, depth);
    }
  }
  /* Opens a parameter; the value follows at depth 1. */
  void before() {
    if (!QUERY) {
      if (begun) out.put('"');
      out.put(begun ? ',' : '{');
      out.put('"');
    } else if (begun) {
      out.put('&');
    }
    begun = true;
  }
  void between() {
    if (QUERY)
      out.put('=');
    else
      literal(PSTR("\":\""), 0);
  }
  void parameter(const char *in_flash) {
    before();
    flash(in_flash, 0);
    between();
  }
  void end() {
    if (!QUERY) literal(PSTR("\"}"), 0);
  }
  /* value / 10^digits, exactly; only characters that nothing escapes. */
  void decimal(int32_t value, uint8_t digits) {
    uint32_t n = value < 0 ? 0 - (uint32_t)value : (uint32_t)value, power = 1;
    if (value < 0) out.put('-');
    for (uint8_t i = digits; i; i--) power *= 10;
    out.number(n / power);
    if (!digits) return;
    out.put('.');
    n %= power;
    while (power /= 10) {
      out.put('0' + (uint8_t)(n / power));
      n %= power;
    }
  }
};

}  // namespace spoorway
#endif

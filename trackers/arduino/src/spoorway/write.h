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
    uint16_t i = at++;
    if (i >= from && i < until) emit(self, c);
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
  /* n / 10^point, with as many digits behind the point. */
  template <class N> void number(N n, uint8_t point = 0) {
    char digits[sizeof(N) > 4 ? 20 : 10];
    uint8_t i = 0;
    do {
      digits[i++] = '0' + (uint8_t)(n % 10);
      n /= 10;
    } while (n || i <= point);
    while (i) {
      if (i == point) put('.');
      put(digits[--i]);
    }
  }
};

/* In literals: \1 = the vendor most schemas have, \2 = the way to a schema's version, \3 = the next parameter, \4 = its value. */
static const char VENDOR[] PROGMEM = "iglu:com.snowplowanalytics.snowplow/";
static const char VERSION_OF[] PROGMEM = "/jsonschema/1-0-";

#define SPOORWAY_SAY(w, text, depth)                                 \
  do {                                                               \
    enum { SPAN = W::span(text, depth) };                             \
    (w).literal(PSTR(text), depth, SPAN);                            \
  } while (0)

template <bool QUERY> struct Writer {
  Out &out;
  explicit Writer(Out &o) : out(o) {}

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
        words(PSTR("\\u00"), depth);
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
  /* Up to the end of a text in flash, or of a word of a template. Answers where. */
  const char *words(const char *p, uint8_t depth) {
    uint8_t c;
    while ((c = pgm_read_byte(p)) > ' ') p++, put(c, depth);
    return p;
  }
  void name(const char *p, const char *end, uint8_t depth) {
    while (p != end) put(pgm_read_byte(p++), depth);
  }
  /* How many bytes a literal becomes; 0 where only writing it tells. */
  static constexpr uint8_t span(const char *p, uint8_t depth) {
    return QUERY || !*p ? 0 : (uint8_t)(span(p + 1, depth) + (*p == 1   ? sizeof VENDOR - 1
                                                              : *p == 2 ? sizeof VERSION_OF - 1
                                                              : *p < 5  ? 3
                                                                        : 1 + (depth && *p == '"')));
  }
  /* What lies outside the piece that is to be sent is not even read: most of a message is literals. */
  void literal(const char *p, uint8_t depth, uint8_t span) {
    if (span && (out.at + span <= out.from || out.at >= out.until)) {
      out.at += span;
      return;
    }
    while (uint8_t c = pgm_read_byte(p++)) {
      if (c > 4) {
        if (!QUERY && depth < 2) { /* most bytes of a message: as put() does it, with fewer steps */
          if (depth && c == '"') out.put('\\');
          out.put(c);
        } else {
          put(c, depth);
        }
      } else if (c < 3)
        words(c == 1 ? VENDOR : VERSION_OF, depth);
      else if (c == 3)
        words(QUERY ? PSTR("&") : PSTR("\",\""), 0);
      else
        words(QUERY ? PSTR("=") : PSTR("\":\""), 0);
    }
  }
  /* value / 10^digits, exactly; only characters that nothing escapes. */
  void decimal(int32_t value, uint8_t digits) {
    if (value < 0) out.put('-');
    out.number(value < 0 ? 0 - (uint32_t)value : (uint32_t)value, digits);
  }
};

}  // namespace spoorway
#endif

/* How the oldest record of a store is written: Json (payload_data), Query (one event as a query string), Compact (a frame).

   A format never changes the record, so that it can be written as often as a link needs: to count, to sign, to send piece by piece. */
#ifndef SPOORWAY_FORMATS_H
#define SPOORWAY_FORMATS_H

namespace spoorway {

/* The next field of a template. */
struct Field {
  const char *name, *more; /* more: behind the kind: the first of an enum's values */
  char kind;               /* 0: there is none */
  uint8_t digits;
  int32_t offset;

  const char *read(const char *p) {
    char c;
    name = p;
    while ((c = (char)pgm_read_byte(p)) && c != '.' && c != '?' && c != '=' && c != '$' && c != '%') p++;
    kind = c;
    if (!c) return p;
    more = ++p;
    digits = 0;
    offset = 0;
    if (c == '.') {
      digits = pgm_read_byte(p++) - '0';
      char sign = (char)pgm_read_byte(p);
      if (sign == '+' || sign == '-') {
        while ((c = (char)pgm_read_byte(++p)) > ' ') offset = offset * 10 + (c - '0');
        if (sign == '-') offset = -offset;
      }
    }
    while ((c = (char)pgm_read_byte(p)) > ' ') p++;
    return c ? p + 1 : p;
  }
};

/* The number of a template, for compact frames; p is moved behind it. */
inline uint16_t template_number(const char *&p) {
  uint16_t number = 0;
  char c;
  while ((c = (char)pgm_read_byte(p)) >= '0' && c <= '9') number = number * 10 + (c - '0'), p++;
  if (c == ' ') p++;
  return number;
}

/* What a number of a record stands for; 0 (absent) never gets here. */
inline int32_t value_of(uint32_t code) { return code & 1 ? (int32_t)(code >> 1) : -(int32_t)(code >> 1); }

template <bool QUERY> struct Event {
  typedef Writer<QUERY> W;
  template <class R> static void copy(Writer<QUERY> &w, R &record, uint16_t length, uint8_t depth) {
    while (--length) w.put(record.next(), depth); /* of a text a record has the length and 1 */
  }

  /* The values of all fields, as parameters or as what is between the braces of data. */
  template <class R> static void values(Writer<QUERY> &w, R &record, const char *p, bool described) {
    Field field;
    char comma = '{';
    if (pgm_read_byte(p)) p++;
    while (p = field.read(p), field.kind) {
      uint32_t code = record.number();
      uint8_t words = field.kind == '$' ? 2 : field.kind == '%' ? 1 : 0;
      if (!code || (!described && words && code == 1)) continue;
      if (described) {
        w.put(comma, 1);
        w.put('"', 1);
        comma = ',';
      } else {
        SPOORWAY_SAY(w, "\3", 1);
      }
      w.name(field.name, field.more - 1, described);
      if (!described) {
        SPOORWAY_SAY(w, "\4", 1);
        if (words) words = 1;
      } else {
        w.words(field.kind == '$' || field.kind == '=' ? PSTR("\":\"") : PSTR("\":"), 1);
      }
      if (words) {
        copy(w, record, (uint16_t)code, words);
      } else if (field.kind == '.') {
        w.decimal(value_of(code), field.digits);
      } else {
        const char *c = field.kind == '?' ? PSTR("false|true") : field.more;
        for (uint8_t skip = (uint8_t)(code >> 1); skip; c++)
          if (pgm_read_byte(c) == '|') skip--;
        for (char letter; (letter = (char)pgm_read_byte(c++)) > ' ' && letter != '|';) w.put(letter, 1);
      }
      if (described && (field.kind == '$' || field.kind == '=')) w.put('"', 1);
    }
    if (described) w.words(comma == '{' ? PSTR("{}") : PSTR("}"), 1);
  }

  template <class Tracker> static void write(Out &out, Tracker &tracker) {
    Writer<QUERY> w(out);
    Reader<typename Tracker::Records> record(tracker.store);
    uint32_t uptime = record.fixed32(), sequence = record.number();
    const char *p = tracker.text_of(record.next());
    template_number(p);
    char first = (char)pgm_read_byte(p);
    bool described = first == '*' || pgm_read_byte(p + 4) == ':';

    if (!QUERY) w.words(PSTR("{\""), 0);
    SPOORWAY_SAY(w, "e\4", 1);
    if (described)
      SPOORWAY_SAY(w, "ue", 1);
    else
      p = w.words(p, 1);
    SPOORWAY_SAY(w, "\3tv\4ino-" SPOORWAY_VERSION, 1);
    const char *const *pair = tracker.about;
    if (!pair || !*pair || pair[0][0] != 'p') SPOORWAY_SAY(w, "\3p\4iot", 1); /* "p" must be the first to be another one */
    if (pair)
      for (; *pair; pair += 2) {
        if (!*pair[1]) continue;
        SPOORWAY_SAY(w, "\3", 1);
        w.text(pair[0], 0);
        SPOORWAY_SAY(w, "\4", 1);
        w.text(pair[1], 1);
      }
    SPOORWAY_SAY(w, "\3dtm\4", 1);
    tracker.write_time(out, uptime);
    if (!tracker.earlier()) {
      SPOORWAY_SAY(w, "\3stm\4", 1);
      tracker.write_time(out, tracker.sent_ms);
    }
    if (described) {
      SPOORWAY_SAY(w, "\3ue_pr\4{\"schema\":\"\1unstruct_event\2" "0\",\"data\":{\"schema\":\"", 1);
      if (first == '*')
        copy(w, record, (uint16_t)record.number(), 2);
      else
        p = w.words(p, 1);
      SPOORWAY_SAY(w, "\",\"data\":", 1);
    }
    if (first == '*')
      copy(w, record, (uint16_t)record.number(), 1);
    else
      values(w, record, p, described);
    if (described) SPOORWAY_SAY(w, "}}", 1);

    uint8_t extra = 0;
    uint16_t length = 0;
    while (record.more()) {
      extra = record.next();
      length = (uint16_t)record.number();
      if (extra == ENTITIES) break; /* always the last one */
      SPOORWAY_SAY(w, "\3", 1);
      w.words(extra == TRUE_TIME ? PSTR("ttm") : PSTR("eid"), 1);
      SPOORWAY_SAY(w, "\4", 1);
      copy(w, record, length, 1);
    }
    if (tracker.tells_clock || extra == ENTITIES) {
      SPOORWAY_SAY(w, "\3co\4{\"schema\":\"\1contexts\2" "1\",\"data\":[", 1);
      if (tracker.tells_clock) {
        SPOORWAY_SAY(w, "{\"schema\":\"iglu:io.spoorway/device_clock\2" "0\",\"data\":{\"boot_id\":", 1);
        out.number(tracker.store.boot(tracker.boot));
        SPOORWAY_SAY(w, ",\"sequence\":", 1);
        out.number(sequence);
        SPOORWAY_SAY(w, ",\"uptime_ms\":", 1);
        out.number(uptime);
        SPOORWAY_SAY(w, "}}", 1);
        if (extra == ENTITIES) w.put(',', 1);
      }
      if (extra == ENTITIES) copy(w, record, length, 1);
      SPOORWAY_SAY(w, "]}", 1);
    }
    if (!QUERY) SPOORWAY_SAY(w, "\"}", 0);
  }
};

/* payload_data with one event, as in a POST to tp2. */
struct Json {
  static const char KIND = 'j';
  static const bool BINARY = false;
  static const char *path() { return PSTR("/com.snowplowanalytics.snowplow/tp2"); }
  static const char *topic() { return PSTR("/tp2"); }
  template <class Tracker> static void write(Out &out, Tracker &tracker) {
    typedef Writer<false> W;
    W w(out);
    SPOORWAY_SAY(w, "{\"schema\":\"\1payload_data\2" "4\",\"data\":[", 0);
    Event<false>::write(out, tracker);
    SPOORWAY_SAY(w, "]}", 0);
  }
};

/* One event as in a GET of /i. */
struct Query {
  static const char KIND = 'q';
  static const bool BINARY = false;
  static const char *path() { return PSTR("/i?"); }
  static const char *topic() { return PSTR("/tp1"); }
  template <class Tracker> static void write(Out &out, Tracker &tracker) { Event<true>::write(out, tracker); }
};

/* A compact frame of one reading. A record whose template has no number goes as a frame that the gateway keeps as a failed event:
   give every template of a compact tracker its number. NAMED: the frame says whose it is, for where nothing else does (radio). */
template <bool NAMED> struct Frames {
  static const char KIND = 'c';
  static const bool BINARY = true;
  static const char *path() { return PSTR("/io.spoorway/c1"); }
  static const char *topic() { return PSTR("/c"); }

  enum { NAME_ = 1, EARLIER = 4, BATCH = 8, VERSION_1 = 0xC0 };

  struct Frame {
    Out &out;
    uint16_t crc;
    void put(uint8_t c) {
      crc = crc16(crc, c);
      out.put(c);
    }
    void number(uint32_t n) {
      for (; n > 0x7F; n >>= 7) put((uint8_t)n | 0x80);
      put((uint8_t)n);
    }
  };

  template <class Tracker> static void write(Out &out, Tracker &tracker) {
    Out count;
    frame(count, tracker, 0);
    frame(out, tracker, (uint8_t)(count.at - 2));
  }

  template <class Tracker> static void frame(Out &out, Tracker &tracker, uint8_t length) {
    Frame f = {out, 0xFFFF};
    Reader<typename Tracker::Records> record(tracker.store);
    uint32_t uptime = record.fixed32(), sequence = record.number(), mark = tracker.sent_ms;
    bool earlier = tracker.earlier();
    if (earlier) mark = uptime;
    bool batch = mark != uptime;
    f.put(VERSION_1 | (NAMED ? NAME_ : 0) | (earlier ? EARLIER : 0) | (batch ? BATCH : 0));
    if (batch) {
      f.put(length);
      f.put(1);
    }
    if (NAMED) {
      f.put((uint8_t)strlen(tracker.device));
      for (const char *c = tracker.device; *c; c++) f.put((uint8_t)*c);
    }
    const char *p = tracker.text_of(record.next());
    f.number(template_number(p));
    f.number(tracker.store.boot(tracker.boot));
    f.number(sequence);
    for (uint8_t i = 0; i < 32; i += 8) f.put((uint8_t)(mark >> i));
    if (batch) f.number(mark - uptime);
    while (pgm_read_byte(p) > ' ') p++;
    if (pgm_read_byte(p)) p++;
    Field field;
    while (p = field.read(p), field.kind) {
      uint32_t code = record.number();
      if (code && field.kind == '.') {
        uint32_t v = (uint32_t)value_of(code) - (uint32_t)field.offset;
        code = (v << 1 ^ (v >> 31 ? 0xFFFFFFFF : 0)) + 1;
      }
      f.number(code);
      if (field.kind == '$' || field.kind == '%')
        while (code-- > 1) f.put(record.next());
    }
    uint16_t crc = f.crc;
    f.put((uint8_t)(crc >> 8));
    f.put((uint8_t)crc);
  }
};

typedef Frames<false> Compact;
typedef Frames<true> NamedCompact;

}  // namespace spoorway
#endif

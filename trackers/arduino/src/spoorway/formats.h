/* How the oldest record of a store is written: Json (payload_data), Query (one event as a query string), Compact (a frame).

   A format never changes the record, so that it can be written as often as a link needs: to count, to sign, to send piece by piece.
   Its Writer is a base of the tracker, and Tracker is what it is a base of. */
#ifndef SPOORWAY_FORMATS_H
#define SPOORWAY_FORMATS_H

namespace spoorway {

/* Reads the oldest record, and the template beside it. */
template <class Tracker, class Index> struct Reading : Out {
  Index from = 0;     /* the next byte of the record */
  const char *at = 0; /* the next letter of the template */

  Tracker &whole() { return *static_cast<Tracker *>(this); }
  SPOORWAY_ONCE uint8_t next() { return whole().store.at(from++); }
  uint32_t number_() { return read_number(*this); }
  /* Begins again. Answers the uptime; the number of the template and the event's sequence come next. */
  uint32_t rewind() {
    uint32_t uptime = 0;
    from = 0;
    for (uint8_t i = 4; i--;) uptime = uptime >> 8 | (uint32_t)next() << 24;
    return uptime;
  }
  /* A number in the template. */
  SPOORWAY_APART uint32_t decimal() {
    uint32_t n = 0;
    for (uint8_t digit; (digit = (uint8_t)(pgm_read_byte(at) - '0')) < 10; at++) n = ten_times(n, digit);
    return n;
  }
  /* Behind the word and the space after it. */
  SPOORWAY_APART void skip_word() {
    uint8_t c;
    do c = pgm_read_byte(at++);
    while (c > ' ');
    if (!c) at--;
  }
};

/* What a number of a record stands for; 0 (absent) never gets here. */
inline int32_t value_of(uint32_t code) { return code & 1 ? (int32_t)(code >> 1) : -(int32_t)(code >> 1); }

/* Whether a letter is of a field's name, and not what tells its kind. */
inline bool in_name(uint8_t c) { return c >= '@' || (uint8_t)(c - '0') < 10; }

/* An event is written from a script: a text in flash in which bytes below 32 stand for something else.

   \1 to \6    words that come often, below; \1 ends a parameter and \2 its name, so they set how what follows is escaped
   \7 FLAG \24 only where the event has one of these flags; one within another ends with it
   \11 …       what differs from event to event */
#define SPOORWAY_EVENT(DEVICE)                                                                                                     \
  "e\002\007\001ue\024\007\002\011\024\001tv\002ino-" SPOORWAY_VERSION "\007\004\001p\002iot\024\012\001dtm\002\013"                 \
  "\007\010\001stm\002\014\024\007\001\001ue_pr\002\003\006unstruct_event\0050\004\003\011\004\024\020\007\001}}\024\021"             \
  "\007\060\001co\002\003\006contexts\0051\004[\024"                                                                                \
  "\007\020\003iglu:io.spoorway/device_clock\0050\004{" DEVICE "\"boot_id\":\015,\"sequence\":\016,\"uptime_ms\":\017}}"              \
  "\007\040,\024\022\007\060]}\024"
#define SPOORWAY_DEVICE "\"device_id\":\"\023\","
#define SPOORWAY_MESSAGE(DEVICE) "\003\006payload_data\0054\004[{\"" SPOORWAY_EVENT(DEVICE) "\010\"}]}"
static const char JSON_WORDS[] PROGMEM =
    "\",\"\0\":\"\0{\"schema\":\"\0\",\"data\":\0/jsonschema/1-0-\0iglu:com.snowplowanalytics.snowplow/";
static const char QUERY_WORDS[] PROGMEM =
    "&\0=\0{\"schema\":\"\0\",\"data\":\0/jsonschema/1-0-\0iglu:com.snowplowanalytics.snowplow/";
/* NAMED: for where nothing but the event tells the device's name */
static const char JSON_EVENT[] PROGMEM = SPOORWAY_MESSAGE(""), JSON_NAMED[] PROGMEM = SPOORWAY_MESSAGE(SPOORWAY_DEVICE);
static const char QUERY_EVENT[] PROGMEM = SPOORWAY_EVENT(""), QUERY_NAMED[] PROGMEM = SPOORWAY_EVENT(SPOORWAY_DEVICE);

/* Whether a link tells nobody the device's name, unless it signs. */
template <class Link> struct Nameless {
  enum { YES = 0 };
};

template <bool QUERY, class Tracker, class Index> class Event : public Reading<Tracker, Index> {
  enum { NEXT = 1, VALUE, OFTEN = 6, IF, OUTSIDE, WORD, ABOUT, TIME, SENT, BOOT, SEQUENCE, UPTIME, FIELDS, EXTRAS, REST, DEVICE, END };
  enum { DESCRIBED = 1, PLAIN = 2, NO_PLATFORM = 4, LIVE = 8, CLOCK = 16, ENTITIES_ = 32, GIVEN = 128 };
  uint8_t depth = 0; /* how many texts a byte lies within: 0 the message, 1 a parameter's value, 2 a text in the JSON of such a value */
  uint8_t flags = 0;

  void write(uint8_t c) { /* most bytes need nothing: hence apart from those that do */
    if (depth > QUERY && (c < ' ' || c == '"' || c == '\\'))
      escape(c);
    else
      plain(c);
  }
  SPOORWAY_ONCE void escape(uint8_t c) {
    uint8_t slashes = depth - QUERY;
    if (c >= ' ') slashes = 2 * slashes - 1;
    while (slashes--) plain('\\');
    if (c < ' ') {
      this->flash(PSTR("u00"));
      this->put('0' + (c >> 4));
      c = Out::digit(c & 15);
    }
    plain(c);
  }
  void plain(uint8_t c) {
    if (QUERY && depth && (uint8_t)((c | 0x20) - 'a') >= 26 && (uint8_t)(c - '0') >= 10 && c != '-' && c != '.' && c != '_' && c != '~') {
      this->put('%');
      this->hex(c);
    } else {
      this->put(c);
    }
  }
  void copy() { /* of a text a record has the length and 1, and then the text */
    uint16_t length = (uint16_t)this->number_();
    copy(length);
  }
  void copy(uint16_t length) {
    while (--length) write(this->next());
  }
  void copy(const char *p) {
    while (uint8_t c = (uint8_t)*p++) write(c);
  }

  /* One field, if the record has a value for it. before: what stands before its name in JSON. Answers whether it had one. */
  SPOORWAY_ONCE void fields() {
    if (flags & GIVEN) return copy();
    char before = '{';
    this->skip_word();
    for (;;) {
      const char *end = this->at;
      uint8_t kind;
      while (in_name(kind = pgm_read_byte(end))) end++;
      if (!kind) break;
      uint32_t code = this->number_();
      if (code && (flags & DESCRIBED || code != 1 || (kind != '$' && kind != '%'))) {
        bool quoted = flags & DESCRIBED && (kind == '$' || kind == '=');
        if (flags & DESCRIBED) {
          write(before);
          write('"');
          before = ',';
        } else {
          often(NEXT);
        }
        while (this->at != end) write(pgm_read_byte(this->at++));
        if (flags & DESCRIBED) {
          write('"');
          write(':');
          if (quoted) write('"');
        } else {
          often(VALUE);
        }
        value(kind, code, quoted);
        if (quoted) write('"');
      }
      this->skip_word();
    }
    if (flags & DESCRIBED) {
      if (before == '{') write(before);
      write('}');
    }
  }
  void value(uint8_t kind, uint32_t code, bool quoted) {
    if (kind == '.') {
      if (!(code & 1)) this->put('-');
      this->number(code >> 1, pgm_read_byte(this->at + 1) - '0');
    } else if (kind == '$' || kind == '%') {
      depth += quoted;
      copy((uint16_t)code);
      depth = 1;
    } else {
      const char *c = kind == '?' ? PSTR("false|true") : this->at + 1;
      for (uint8_t skip = (uint8_t)code >> 1; skip;)
        if (pgm_read_byte(c++) == '|') skip--;
      for (uint8_t letter; (letter = pgm_read_byte(c++)) > ' ' && letter != '|';) write(letter);
    }
  }

  void extras() {
    while (this->from != this->whole().store.size()) {
      uint8_t extra = this->next();
      if (extra == ENTITIES) { /* always the last one */
        flags |= ENTITIES_;
        return;
      }
      tell(extra == TRUE_TIME ? PSTR("\001ttm\002") : PSTR("\001eid\002"));
      copy();
    }
  }

  SPOORWAY_ONCE void about() {
    if (const char *const *pair = this->whole().about)
      for (; *pair; pair += 2)
        if (*pair[1]) {
          often(NEXT);
          copy(pair[0]);
          often(VALUE);
          copy(pair[1]);
        }
  }

  uint32_t value_of_code(uint8_t c) {
    Index here = this->from;
    uint32_t n = this->rewind();
    if (c == SEQUENCE) {
      this->next();
      n = this->number_();
    }
    if (c == BOOT) n = this->whole().store.boot(this->whole().boot);
    if (c == SENT) n = this->whole().sent_ms;
    this->from = here;
    return n;
  }

  void often(uint8_t number) {
    const char *word = QUERY ? QUERY_WORDS : JSON_WORDS;
    for (uint8_t i = number; --i;)
      while (pgm_read_byte(word++));
    if (number == NEXT || number == VALUE) depth = 0;
    tell(word);
    if (number == VALUE) depth = 1;
  }

  void tell(const char *script) {
    while (uint8_t c = pgm_read_byte(script++)) {
      if (c >= ' ') {
        write(c);
      } else if (c <= OFTEN) {
        often(c);
      } else if (c == IF) {
        if (!(pgm_read_byte(script++) & flags))
          while (pgm_read_byte(script++) != END);
      } else if (c == OUTSIDE) {
        depth = 0;
      } else if (c == WORD) {
        if (flags & GIVEN) {
          depth = 2;
          copy();
          depth = 1;
        } else {
          while ((c = pgm_read_byte(this->at)) > ' ') this->at++, write(c);
        }
      } else if (c == ABOUT) {
        about();
      } else if (c <= SENT) {
        this->whole().write_time(value_of_code(c));
      } else if (c <= UPTIME) {
        this->number(value_of_code(c));
      } else if (c == FIELDS) {
        fields();
      } else if (c == EXTRAS) {
        extras();
      } else if (Tracker::NAMELESS && c == DEVICE) {
        copy(this->whole().device);
      } else if (c == REST) {
        if (flags & ENTITIES_) copy();
      }
    }
  }

 public:
  void body() {
    Tracker &t = this->whole();
    this->rewind();
    this->at = t.text_of(this->next());
    this->number_();
    if ((uint8_t)(pgm_read_byte(this->at) - '0') < 10) this->skip_word(); /* the number that compact frames call it */
    depth = 0;
    const char *kind = this->at;
    uint8_t is = pgm_read_byte(kind) == '*' ? DESCRIBED | GIVEN : pgm_read_byte(kind + 4) == ':' ? DESCRIBED : PLAIN;
    if (!t.about || !*t.about || t.about[0][0] != 'p') is |= NO_PLATFORM; /* "p" must be the first to be another one */
    if (!t.earlier()) is |= LIVE;
    if (t.tells_clock) is |= CLOCK;
    flags = is;
    tell(QUERY ? (Tracker::NAMELESS ? QUERY_NAMED : QUERY_EVENT) : Tracker::NAMELESS ? JSON_NAMED : JSON_EVENT);
  }
};

/* payload_data with one event, as in a POST to tp2. */
struct Json {
  static const char KIND = 'j';
  static const bool BINARY = false;
  static const char *path() { return PSTR("/com.snowplowanalytics.snowplow/tp2"); }
  static const char *topic() { return PSTR("/tp2"); }
  enum { TOPIC = 4 };
  template <class Tracker, class Index> struct Writer : Event<false, Tracker, Index> {};
};

/* One event as in a GET of /i. */
struct Query {
  static const char KIND = 'q';
  static const bool BINARY = false;
  static const char *path() { return PSTR("/i?"); }
  static const char *topic() { return PSTR("/tp1"); }
  enum { TOPIC = 4 };
  template <class Tracker, class Index> struct Writer : Event<true, Tracker, Index> {};
};

/* A compact frame of one reading. A record whose template has no number goes as a frame that the gateway keeps as a failed event:
   give every template of a compact tracker its number. NAMED: the frame says whose it is, for where nothing else does (radio). */
template <bool NAMED> struct Frames {
  static const char KIND = 'c';
  static const bool BINARY = true;
  static const char *path() { return PSTR("/io.spoorway/c1"); }
  static const char *topic() { return PSTR("/c"); }
  enum { TOPIC = 2, NAME_ = 1, EARLIER = 4, BATCH = 8, VERSION_1 = 0xC0 };

  template <class Tracker, class Index> class Writer : public Reading<Tracker, Index> {
    uint16_t crc = 0;
    uint8_t length = 0;
    bool told = true; /* else it is only counted */
    uint8_t held = 0; /* where it goes as letters: bits that are none yet, behind a 1 that says how many they are */

    SPOORWAY_ONCE void framed(uint8_t c) {
      crc = crc16(crc, c);
      length++;
      if (!told) return;
      if (!held) return this->put(c);
      for (uint8_t i = 8; i--; c <<= 1) spell(c >> 7);
    }
    SPOORWAY_ONCE void spell(uint8_t b) { /* of unpadded base64url */
      uint8_t v = held << 1 | b;
      if (v & 64) {
        v &= 63;
        uint8_t c = v + 'A';
        if (v >= 26) c += 'a' - 'A' - 26;
        if (v >= 52) c += '0' - 'a' - 26;
        if (v == 62) c = '-';
        if (v == 63) c = '_';
        this->put(c);
        v = 1;
      }
      held = v;
    }
    SPOORWAY_APART void frame() {
      Tracker &t = this->whole();
      crc = 0xFFFF;
      uint32_t uptime = this->rewind(), age = t.sent_ms - uptime;
      uint8_t head = VERSION_1 | (NAMED ? NAME_ : 0);
      if (t.earlier()) {
        age = 0;
        head |= EARLIER;
      }
      if (age) head |= BATCH;
      framed(head);
      if (age) {
        framed(length - 3); /* of all that follows, from when it was counted */
        framed(1);
      }
      if (NAMED) {
        framed((uint8_t)strlen(t.device));
        for (const char *c = t.device; *c; c++) framed((uint8_t)*c);
      }
      this->at = t.text_of(this->next());
      sevens(this->decimal());
      sevens(t.store.boot(t.boot));
      sevens(this->number_());
      four(uptime + age);
      if (age) sevens(age);
      if (pgm_read_byte(this->at) == ' ') this->at++;
      this->skip_word();
      for (;;) {
        uint8_t kind;
        while (in_name(kind = pgm_read_byte(this->at))) this->at++;
        if (!kind) break;
        uint32_t code = this->number_();
        if (code && kind == '.') code = moved(code);
        sevens(code);
        if (kind == '$' || kind == '%')
          for (Index left = (Index)code; left > 1; left--) framed(this->next());
        this->skip_word();
      }
      for (uint8_t i = 2; i--;) framed((uint8_t)(crc >> 8)); /* the second time the first is in the sum, and the low byte the high one */
    }
    /* The code of a number less the offset that the template has behind its kind and digits. Of both, ~n is -n - 1: n - 8 is ~(~n + 8). */
    uint32_t moved(uint32_t code) {
      uint8_t sign = pgm_read_byte(this->at += 2);
      if (sign <= ' ') return code;
      this->at++;
      uint8_t less = sign == '+';
      uint8_t turned = (uint8_t)(code - 1 - less) & 1; /* an even code is of a number below 0 */
      uint32_t n = (code - 1) >> 1;
      if (turned) n = ~n;
      n += this->decimal();
      if (n >> 31) {
        n = ~n;
        less ^= 1;
      }
      return (n << 1 | less) + 1;
    }

   public:
    /* As Out's, through the sum; records are written with them, too. */
    SPOORWAY_ONCE void sevens(uint32_t n) {
      for (; n > 0x7F; n >>= 7) framed((uint8_t)n | 0x80);
      framed((uint8_t)n);
    }
    void four(uint32_t n) {
      for (uint8_t i = 4; i--; n >>= 8) framed((uint8_t)n);
    }
    SPOORWAY_ONCE void body() {
      length = 0;
      told = false;
      frame();
      told = true;
      frame();
    }
    /* The frame as letters. */
    void letters() {
      held = 1;
      body();
      while (held != 1) spell(0);
      held = 0;
    }
  };
};

typedef Frames<false> Compact;
typedef Frames<true> NamedCompact;

}  // namespace spoorway
#endif

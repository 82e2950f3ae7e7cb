/* Tracker: takes events at once, hands them to its link one after the other, and forgets each when the link says it is on disk.

   track() only copies bytes within RAM. loop() must be called often; it does one small thing at a time. */
#ifndef SPOORWAY_TRACKER_H
#define SPOORWAY_TRACKER_H

namespace spoorway {

/* Values that may follow an event's own, in this order. */
struct TrueTime { /* milliseconds since 1970, in decimal digits */
  const char *text;
  explicit TrueTime(const char *t) : text(t) {}
};
struct EventId { /* only where nobody tells the device's clock: else the id follows from device, boot and sequence */
  const char *text;
  explicit EventId(const char *t) : text(t) {}
};
struct Entities { /* JSON of one or more {"schema":…,"data":…} with commas in between */
  const char *text;
  explicit Entities(const char *t) : text(t) {}
};

/* The device's clock is its uptime. */
struct Uptime {
  void write(Out &out, uint32_t uptime_ms) const { out.number(uptime_ms); }
  void set(uint64_t, uint32_t) {}
};

/* A wall clock, set by the sketch (NTP, GPS, RTC): times of this boot are sent as times since 1970. 8 bytes of RAM, 64-bit arithmetic. */
struct Wall {
  uint64_t at_start;
  constexpr Wall() : at_start(0) {}
  void write(Out &out, uint32_t uptime_ms) const {
    char digits[21];
    uint8_t i = sizeof digits;
    uint64_t now = at_start + uptime_ms;
    digits[--i] = 0;
    do digits[--i] = '0' + (uint8_t)(now % 10);
    while (now /= 10);
    out.text(digits + i);
  }
  void set(uint64_t unix_ms, uint32_t uptime_ms) { at_start = unix_ms - uptime_ms; }
};

/* Whether a tracker may say that it is of this platform. */
inline bool known_platform(const char *name) {
  const char *p = PSTR("web iot pc mob app srv tv cnsl headset ");
  while (pgm_read_byte(p)) {
    const char *c = name;
    while (*c && *c == (char)pgm_read_byte(p)) c++, p++;
    if (!*c && c != name && pgm_read_byte(p) == ' ') return true;
    while (pgm_read_byte(p++) != ' ');
  }
  return false;
}

/* What the templates of a sketch are, and how this version writes records, in 16 bits. A store that keeps records asks for it. */
struct Mark {
  const Template *table;
  uint8_t count;
  operator uint16_t() const {
    uint16_t sum = 2; /* another number wherever a record changes: 1.0.0 had 65535 */
    for (uint8_t i = 0; i < count; i++)
      for (const char *p = (const char *)pgm_read_ptr(table + i); uint8_t c = pgm_read_byte(p); p++) sum = crc16(sum, c);
    return sum;
  }
};

template <class Link, class Store, class Format = Json, class Seal = Open, class Clock = Uptime>
class Tracker : public Format::template Writer<Tracker<Link, Store, Format, Seal, Clock>, typename Store::Index>, public Seal, Clock {
 public:
  typedef Format Form;
  enum { NAMELESS = Nameless<Link>::YES && Seal::BYTES == 0 };
  Store &store;
  Link &link;
  const char *device;       /* its name */
  const char *const *about; /* parameters of every event: name, value, …, 0 */
  uint32_t boot, sequence, message;
  uint32_t sent_ms; /* when the message was made; between messages, until when there is none */
  uint16_t sent, resent, dropped_full, dropped_large, refused;
  bool tells_clock : 1;

 private:
  uint8_t failures : 4;
  const Template *templates; /* in flash */

  static void keep(void *self, uint8_t c) { static_cast<Store *>(self)->put(c); }
  void add(long v) { this->sevens(((uint32_t)v << 1 ^ (v < 0 ? 0xFFFFFFFF : 0)) + 1); }
  SPOORWAY_ONCE void add(int v) { add((long)v); }
  void add(unsigned v) { add((long)v); }
  void add(unsigned long v) { add((long)v); }
  void add(bool v) { add((long)v); }
  void add(Absent) { this->put(0); }
  void add(const char *text) {
    uint16_t length = 0;
    if (!text) return this->put(0);
    while (text[length]) length++;
    this->sevens(length + 1);
    while (*text) this->put((uint8_t)*text++);
  }
  void add(const __FlashStringHelper *text) {
    const char *p = (const char *)text;
    uint16_t length = 0;
    while (pgm_read_byte(p + length)) length++;
    this->sevens(length + 1);
    while (uint8_t c = pgm_read_byte(p++)) this->put(c);
  }
  void add(Raw v) { add(v.text); }
  void extra(uint8_t kind, const char *text) {
    if (!text || !*text) return;
    this->put(kind);
    add(text);
  }
  void add(TrueTime v) { extra(TRUE_TIME, v.text); }
  void add(EventId v) { extra(EVENT_ID, v.text); }
  void add(Entities v) { extra(ENTITIES, v.text); }
  void add(double) = delete; /* spoorway::fixed(21.57, 2) says how many digits count */
  void all() {}
  template <class V, class... More> void all(V first, More... more) {
    add(first);
    all(more...);
  }

  void open(uint8_t of) {
    store.open();
    to(keep, &store);
    this->four(millis());
    this->put(of);
    this->sevens(one_more(sequence));
  }
  Result consent(bool out) {
    if (!templates) return CLOSED;
    if (out) link.hang_up(*this);
    rest(0);
    return store.close_for(out) ? (Result)0 : STORAGE;
  }
  int32_t close() {
    Result taken = store.close();
    if (taken > 0) return (int32_t)sequence;
    one_more(taken == FULL ? dropped_full : dropped_large);
    return taken;
  }

 public:
  constexpr Tracker(Link &l, Store &s, const Seal &how = Seal())
      : Seal(how), store(s), link(l), device(""), about(0), boot(0), sequence(0), message(0), sent_ms(0), sent(0), resent(0), dropped_full(0),
        dropped_large(0), refused(0), tells_clock(true), failures(0), templates(0) {}

  /* name: of the device. table: the templates, `count` of them, in flash. parameters: see about, or 0.
     start: the boot id where the store keeps none; a random one if the device does not sign. */
  Result begin(const char *name, const Template *table, uint8_t count, const char *const *parameters = 0, uint32_t start = 0) {
    device = name;
    if (!Format::BINARY) about = parameters; /* frames have none */
    templates = table;
    rest(0); /* begin() may be called long after the start */
    Mark mark = {table, count};
    boot = store.begin(start, mark);
    return boot == 0 && start == 0 ? STORAGE : (Result)0;
  }

  /* An event of template `of`, with a value for each of its fields in their order: whole numbers at scale, texts, bools, Absent.
     The event's sequence, or why it was not taken. Never waits, never sends. */
  template <class... V> int32_t track(uint8_t of, V... values) {
    if (!templates) return CLOSED;
    if (store.closed()) return OPTED_OUT;
    open(of);
    all(values...);
    return close();
  }

  /* Verbs of all trackers; `of` is where the template stands in the table. */
  template <class... More>
  int32_t track_structured(uint8_t of, const char *category, const char *action, const char *label = 0, const char *property = 0,
                           const char *value = 0, More... more) {
    if (!category || !*category || !action || !*action) return MISSING;
    return track(of, category, action, label, property, value, more...);
  }
  template <class... More> int32_t track_self_describing(uint8_t of, const char *schema, const char *json, More... more) {
    if (!schema || !*schema || !json || !*json) return MISSING;
    return track(of, schema, json, more...);
  }
  template <class... More>
  int32_t track_screen_view(uint8_t of, const char *name, const char *id, const char *type = 0, const char *previous_name = 0,
                            const char *previous_id = 0, const char *previous_type = 0, const char *transition = 0, More... more) {
    if (!name || !*name) return MISSING;
    return track(of, name, id, type, previous_name, previous_id, previous_type, transition, more...);
  }
  /* QUEUE_HEALTH at place `of`: how this queue fared since the start. */
  int32_t track_health(uint8_t of) {
    return track(of, Absent(), (long)sent, (long)resent, (long)dropped_full, 0, (long)dropped_large, (long)store.errors(), Absent(),
                 (long)store.size_of_all());
  }

  /* Milliseconds since 1970, now. Only Wall remembers it. */
  void set_time(uint64_t unix_ms) { Clock::set(unix_ms, millis()); }

  /* Of a tracker whose store is a Consent: what waits is erased, the link hangs up, and nothing is taken, kept or sent until opt_in().
     Answers 0, or STORAGE where the next start will not know. Takes 1.8 ms for each record in EEPROM. */
  Result opt_out() { return consent(true); }
  Result opt_in() { return consent(false); }

  /* loop() until nothing waits, for at most about that long: one loop() more, and what a Client's connect takes. Whether nothing waits. */
  bool flush(uint32_t limit_ms) {
    uint32_t begun = millis();
    while (store.size_of_all() && millis() - begun < limit_ms) {
      loop();
      yield();
    }
    return !store.size_of_all();
  }

  /* One small step. */
  void loop() {
    if (store.ready() && !(store.step() && !store.ready())) link.step(*this);
  }

  /* ---- what formats and links ask and tell ---- */

  const char *text_of(uint8_t i) const { return (const char *)pgm_read_ptr(templates + i); }
  bool earlier() const { return store.boot(boot) != boot; }
  void write_time(uint32_t uptime_ms) {
    if (earlier())
      this->number(uptime_ms); /* nobody knows when that boot was */
    else
      Clock::write(*this, uptime_ms);
  }
  /* Whose message it is: device, boot and number, with a sign in between. */
  void who(uint8_t between) {
    this->text(device);
    this->put(between);
    figures(boot);
    this->put(between);
    figures(message);
  }
  void figures(uint32_t n) { Format::BINARY ? this->digits(n) : this->number(n); }
  /* Where the message goes from now on. */
  SPOORWAY_ONCE void to(void (*emit)(void *, uint8_t), void *self) {
    this->emit = emit;
    this->self = self;
  }
  using Format::template Writer<Tracker, typename Store::Index>::body;
  /* The event, for links of your own. */
  void body(Out &out) {
    to(out.emit, out.self);
    body();
  }

  /* True: the oldest event is to be sent, under a new message number and time. */
  bool due() {
    if (!store.any() || resting()) return false;
    one_more(message);
    return true;
  }
  SPOORWAY_ONCE void begin_message() {
    one_more(message);
    sent_ms = millis();
  }
  /* Asked often, so that the moment it answers no is always the last one, and the time of the next message. */
  bool resting() {
    uint32_t now = millis();
    if ((int32_t)(now - sent_ms) < 0) return true;
    sent_ms = now;
    return false;
  }
  SPOORWAY_APART void rest(uint32_t ms) { sent_ms = millis() + ms; }
  void acked() {
    one_more(sent);
    failures = 0;
    store.drop();
  }
  void never() {
    one_more(refused);
    store.drop();
  }
  void again() { one_more(resent); } /* the message goes out once more, now or later */
  /* Somebody said or showed that it is not now: full jitter up to 1 s, 2 s, 4 s … 9 min, and no less than what was asked for. */
  void later(uint32_t least_ms = 0) {
    uint8_t draw = (uint8_t)millis(); /* that devices differ is all it needs to do */
    for (const char *c = device; *c; c++) draw += draw + *c;
    rest(least_ms + ((uint32_t)draw << (failures + 2)));
    if (failures < 9) failures++;
  }
};

}  // namespace spoorway
#endif

/* SerialLine: messages as lines over any Stream, each answered by a line; what the sketch prints itself in between does no harm
   as long as it prints between calls of loop() that leave no line half written: see idle().

   Writes as much as the stream takes without waiting, 1 to 32 bytes a step. Source: docs/devices.md, "Serial lines". */
#ifndef SPOORWAY_SERIAL_LINE_H
#define SPOORWAY_SERIAL_LINE_H

namespace spoorway {

/* A word of an answer as its fields are read: each letter adds to ten times those before, so that digits are a number. */
constexpr uint16_t word_of(const char *p, uint16_t before = 0) { return *p ? word_of(p + 1, (uint16_t)(before * 10 + (*p - '0'))) : before; }

template <class Port = Stream> class SerialLine {
  enum State { IDLE, SENDING, WAITING };
  enum Part { KIND, BOOT, MESSAGE, REASON, SUM, NOTHING = 16 };
  enum Kind : uint8_t { ACKED = word_of("a"), REFUSED = word_of("n"), HINT = word_of("r") };
  enum Reason : uint16_t { DAMAGED = word_of("crc"), CUT = word_of("line"), BUSY = word_of("busy") };
  enum : uint16_t { BEFORE = 0x5E0C }; /* the sum that @ makes what a sum begins with */
  enum { ANSWER_MS = 2000, TRIES = 3, AT_ONCE = 32 /* bytes a step: loop() shall take less than 5 ms */ };
  Port &port;
  uint8_t state, tries;
  uint16_t at, crc, since; /* at: of the line that is being sent; since: the last bits of when it was */
  uint16_t skip;           /* what is left of it that was sent before, */
  uint8_t room;            /* of what may be sent now, */
  bool summed;             /* and whether it is in the sum */
  uint32_t least_ms;       /* from one message to the next, as the gateway asks */
  /* Of the line that is being read: which part, what it is, 0 where it is about our message, its sum, the number of the part */
  uint8_t part, kind, others;
  uint16_t sum;
  uint32_t number;

  static void emit(void *self, uint8_t c) { /* mostly for a byte that was sent before: hence apart */
    SerialLine *line = static_cast<SerialLine *>(self);
    if (line->skip)
      line->skip--;
    else
      line->send(c);
  }
  void send(uint8_t c) {
    if (!room) return;
    room--;
    at++;
    if (summed) crc = crc16(crc, c);
    port.write(c);
  }

  template <class Tracker> static void write_body(Tracker &tracker) { Body<Tracker::Form::BINARY>::write(tracker); }
  template <bool BINARY, class Void = void> struct Body {
    template <class Tracker> static void write(Tracker &tracker) { tracker.body(); }
  };
  template <class Void> struct Body<true, Void> {
    template <class Tracker> static void write(Tracker &tracker) { tracker.letters(); }
  };

  struct Signed { /* what a signature covers beside the numbers */
    template <class Tracker> static void target(Tracker &tracker) { tracker.put(Tracker::Form::KIND); }
    template <class Tracker> static void body(Tracker &tracker) { write_body(tracker); }
  };

  template <class Tracker> void send(Tracker &tracker) {
    int free = port.availableForWrite();
    room = free > AT_ONCE ? (uint8_t)AT_ONCE : (uint8_t)free;
    if (!room) room = 1; /* it cannot say, or waits for so little */
    skip = at;
    summed = true;
    tracker.to(emit, this);
    tracker.put('@');
    tracker.put(Tracker::Form::KIND);
    tracker.put(',');
    tracker.who(',');
    if (Tracker::BYTES > 0) {
      tracker.put(',');
      for (uint8_t i = 0; i < Tracker::BYTES; i++) tracker.hex(tracker.signature(i));
    }
    tracker.put(':');
    write_body(tracker);
    summed = false;
    tracker.put('*');
    tracker.hex((uint8_t)(crc >> 8));
    tracker.hex((uint8_t)crc);
    if (!room) return;
    tracker.put('\n');
    state = WAITING;
    since = (uint16_t)millis();
  }

  SPOORWAY_ONCE void start() {
    at = 0;
    crc = BEFORE;
    state = SENDING;
  }

  /* One byte of an answer: !KIND,BOOT,MESSAGE,REASON*SUM, or !r,MILLISECONDS*SUM. True: the line is whole and right. */
  template <class Tracker> bool read(Tracker &tracker, uint8_t c) {
    if (c == '!') {
      part = KIND;
      others = 2;
      sum = 0xFFFF;
      number = 0;
    } else if (part < SUM) {
      if (c == ',' || c == '*') {
        if (part == KIND) kind = (uint8_t)number;
        if (part == BOOT && number == tracker.boot) others = 1;
        if (part == MESSAGE && (number == tracker.message ? others == 1 : !number && kind == REFUSED)) others = 0; /* or it could not be read */
        part++;
      }
      if (c == '*') {
        part = SUM;
        return false;
      }
      sum = crc16(sum, c);
      number = c == ',' ? 0 : ten_times(number, c - '0');
    } else if (part < NOTHING) {
      if (c == '\n') {
        bool right = part == SUM + 4;
        part = NOTHING;
        return right;
      }
      if (c == '\r') return false;
      part++;
      if ((c | 0x20) != Out::digit((uint8_t)(sum >> 8) >> 4)) part = NOTHING;
      sum <<= 4;
    }
    return false;
  }

  template <class Tracker> void answered(Tracker &tracker) {
    if (kind == HINT) least_ms = number;
    if (state != WAITING || (kind != REFUSED && kind != ACKED) || others) return;
    uint16_t reason = (uint16_t)number;
    if (kind == REFUSED && (reason == DAMAGED || reason == CUT)) return retry(tracker);
    state = IDLE;
    if (kind == REFUSED && reason == BUSY) return tracker.later();
    tracker.rest(least_ms);
    kind == REFUSED ? tracker.never() : tracker.acked();
  }

  template <class Tracker> SPOORWAY_ONCE void retry(Tracker &tracker) {
    tracker.again();
    if (++tries < TRIES) {
      start(); /* the same number and bytes */
    } else {
      state = IDLE;
      tracker.later();
    }
  }

 public:
  explicit constexpr SerialLine(Port &p)
      : port(p), state(IDLE), tries(0), at(0), crc(0), since(0), skip(0), room(0), summed(false), least_ms(0), part(NOTHING), kind(0), others(0),
        sum(0), number(0) {}

  /* Whether the sketch may print now without breaking a line of ours. */
  bool idle() const { return state != SENDING || !at; }

  /* What is on its way is given up; the gateway refuses half a line, and nobody hears that. */
  template <class Tracker> void hang_up(Tracker &) {
    if (!idle()) port.write((uint8_t)'\n');
    state = IDLE;
  }

  template <class Tracker> void step(Tracker &tracker) {
    for (uint8_t most = 16; most; most--) {
      int c = port.read();
      if (c < 0) break;
      if (read(tracker, (uint8_t)c)) answered(tracker);
    }
    if (state == SENDING) {
      send(tracker);
    } else if (state == WAITING) {
      if ((uint16_t)((uint16_t)millis() - since) >= ANSWER_MS) retry(tracker);
    } else if (tracker.due()) {
      tries = 0;
      tracker.template sign<Signed>(tracker);
      start();
    }
  }
};

}  // namespace spoorway
#endif

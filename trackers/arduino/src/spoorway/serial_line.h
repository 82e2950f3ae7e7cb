/* SerialLine: messages as lines over any Stream, each answered by a line; what the sketch prints itself in between does no harm
   as long as it prints between calls of loop() that leave no line half written: see idle().

   Writes as much as the stream takes without waiting, 1 to 32 bytes a step. Source: docs/devices.md, "Serial lines". */
#ifndef SPOORWAY_SERIAL_LINE_H
#define SPOORWAY_SERIAL_LINE_H

namespace spoorway {

template <class Port = Stream> class SerialLine {
  enum State { IDLE, SENDING, WAITING };
  enum Part { NOTHING, KIND, FIRST, SECOND, REASON, SUM };
  enum { ANSWER_MS = 2000, TRIES = 3, AT_ONCE = 32 /* bytes a step: loop() shall take less than 5 ms */ };
  Port &port;
  uint8_t state, tries;
  uint16_t at, crc, since; /* at: of the line that is being sent; since: the last bits of when it was */
  uint32_t least_ms;       /* from one message to the next, as the gateway asks */
  /* Of the line that is being read: which part, its first letter, the second one of a reason, letters of the part, the sum, two numbers */
  uint8_t part, kind, reason, letters;
  uint16_t sum;
  uint32_t before, number;

  struct Piece { /* of a line: what lies behind `at`, as much as there is room for */
    SerialLine &line;
    uint16_t skip;
    uint8_t room;
    bool summed;
    static void emit(void *self, uint8_t c) { /* mostly for a byte that was sent before: hence apart */
      Piece *p = static_cast<Piece *>(self);
      if (p->skip)
        p->skip--;
      else
        p->send(c);
    }
    SPOORWAY_ONCE void send(uint8_t c) {
      if (!room) return;
      room--;
      if (line.at++ && summed) line.crc = crc16(line.crc, c);
      line.port.write(c);
    }
  };

  /* unpadded base64url on its way */
  struct Letters {
    Out out;
    uint16_t held;
    uint8_t bits;
    void letter(uint8_t v) {
      v &= 63;
      out.put(v < 26 ? 'A' + v : v < 52 ? 'a' + v - 26 : v < 62 ? '0' + v - 52 : v == 62 ? '-' : '_');
    }
    static void emit(void *self, uint8_t c) {
      Letters *l = static_cast<Letters *>(self);
      l->held = l->held << 8 | c;
      for (l->bits += 8; l->bits >= 6;) {
        l->bits -= 6;
        l->letter((uint8_t)(l->held >> l->bits));
      }
    }
    void end() {
      if (bits) letter((uint8_t)(held << (6 - bits)));
    }
  };

  template <class Tracker> static void write_body(Tracker &tracker) {
    if (Tracker::Form::BINARY) {
      Letters letters = {tracker, 0, 0};
      tracker.to(Letters::emit, &letters);
      tracker.body();
      letters.end();
      tracker.to(letters.out.emit, letters.out.self);
    } else {
      tracker.body();
    }
  }

  template <class Tracker> struct Signed { /* what a signature covers beside the numbers */
    Tracker &tracker;
    void target() { tracker.put(Tracker::Form::KIND); }
    void body() { write_body(tracker); }
  };

  template <class Tracker> SPOORWAY_ONCE void send(Tracker &tracker) {
    int room = port.availableForWrite();
    Piece piece = {*this, at, (uint8_t)(room > AT_ONCE ? AT_ONCE : room > 1 ? room : 1), true};
    tracker.to(Piece::emit, &piece);
    tracker.put('@');
    tracker.put(Tracker::Form::KIND);
    tracker.put(',');
    tracker.text(tracker.device);
    tracker.put(',');
    tracker.number(tracker.boot);
    tracker.put(',');
    tracker.number(tracker.message);
    if (Tracker::BYTES > 0) {
      tracker.put(',');
      for (uint8_t i = 0; i < Tracker::BYTES; i++) tracker.hex(tracker.signature(i));
    }
    tracker.put(':');
    write_body(tracker);
    piece.summed = false;
    tracker.put('*');
    tracker.hex((uint8_t)(crc >> 8));
    tracker.hex((uint8_t)crc);
    if (!piece.room) return;
    tracker.put('\n');
    state = WAITING;
    since = (uint16_t)millis();
  }

  void start() {
    at = 0;
    crc = 0xFFFF;
    state = SENDING;
  }

  /* One byte of an answer: !KIND,NUMBER,NUMBER,REASON*SUM. True: the line is whole and right. */
  SPOORWAY_ONCE bool read(uint8_t c) {
    if (c == '!') {
      part = KIND;
      sum = 0xFFFF;
      before = number = 0;
      return false;
    }
    if (part == SUM) {
      if (c == '\n') {
        part = NOTHING;
        return letters == 4;
      }
      if (c == '\r') return false;
      if ((c | 0x20) != Out::digit((uint8_t)(sum >> 8) >> 4)) part = NOTHING;
      sum <<= 4;
      letters++;
      return false;
    }
    if (c == '*') {
      letters = 0;
      part = part ? SUM : NOTHING;
      return false;
    }
    sum = crc16(sum, c);
    if (c == ',') {
      letters = 0;
      if (part == FIRST) {
        before = number;
        number = 0;
      }
      if (part && part < REASON) part++;
    } else if (part == KIND) {
      kind = c;
    } else if (part < REASON) {
      uint32_t twice = number + number;
      number = (twice << 2) + twice + (uint8_t)(c - '0');
    } else if (letters++ == 1) {
      reason = c; /* tells all reasons apart that need to be */
    }
    return false;
  }

  template <class Tracker> SPOORWAY_ONCE void answered(Tracker &tracker) {
    if (kind == 'r') least_ms = number;
    bool refused = kind == 'n';
    if (state != WAITING || (!refused && kind != 'a')) return;
    if (!(refused && !number) && (before != tracker.boot || number != tracker.message)) return;
    if (refused && (reason == 'r' || reason == 'i')) return retry(tracker); /* crc, line */
    state = IDLE;
    if (refused && reason == 'u') return tracker.later(); /* busy */
    tracker.rest(least_ms);
    refused ? tracker.never() : tracker.acked();
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
      : port(p), state(IDLE), tries(0), at(0), crc(0), since(0), least_ms(0), part(NOTHING), kind(0), reason(0), letters(0), sum(0), before(0),
        number(0) {}

  /* Whether the sketch may print now without breaking a line of ours. */
  bool idle() const { return state != SENDING || !at; }

  /* What is on its way is given up; the gateway refuses half a line, and nobody hears that. */
  template <class Tracker> void hang_up(Tracker &) {
    if (!idle()) port.write((uint8_t)'\n');
    state = IDLE;
  }

  template <class Tracker> SPOORWAY_ONCE void step(Tracker &tracker) {
    for (uint8_t most = 16; most && port.available() > 0; most--)
      if (read((uint8_t)port.read())) answered(tracker);
    if (state == SENDING) {
      send(tracker);
    } else if (state == WAITING) {
      if ((uint16_t)((uint16_t)millis() - since) >= ANSWER_MS) retry(tracker);
    } else if (tracker.due()) {
      tries = 0;
      Signed<Tracker> what = {tracker};
      tracker.sign(tracker, what);
      start();
    }
  }
};

}  // namespace spoorway
#endif

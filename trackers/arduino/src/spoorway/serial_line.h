/* SerialLine: messages as lines over any Stream, each answered by a line; what the sketch prints itself in between does no harm
   as long as it prints between calls of loop() that leave no line half written: see idle().

   Writes as much as the stream takes without waiting, at least one byte a step. Source: docs/devices.md, "Serial lines". */
#ifndef SPOORWAY_SERIAL_LINE_H
#define SPOORWAY_SERIAL_LINE_H

namespace spoorway {

template <class Port = Stream> class SerialLine {
  enum State { IDLE, SENDING, WAITING };
  enum { ANSWER_MS = 2000, TRIES = 3 };
  Port &port;
  uint8_t state, tries;
  uint16_t at, crc;
  uint32_t since;
  /* of the line that is being read */
  uint8_t part, kind, reason, digits;
  uint16_t sum, said;
  uint32_t numbers[2];

  static void emit(void *self, uint8_t c) {
    SerialLine *line = static_cast<SerialLine *>(self);
    if (line->at++) line->crc = crc16(line->crc, c);
    line->port.write(c);
  }
  static void emit_end(void *self, uint8_t c) {
    SerialLine *line = static_cast<SerialLine *>(self);
    line->at++;
    line->port.write(c);
  }

  /* unpadded base64url on its way */
  struct Letters {
    Out &out;
    uint16_t held;
    uint8_t bits;
    void letter(uint8_t v) {
      out.put(v < 26 ? 'A' + v : v < 52 ? 'a' + v - 26 : v < 62 ? '0' + v - 52 : v == 62 ? '-' : '_');
    }
    static void emit(void *self, uint8_t c) {
      Letters *l = static_cast<Letters *>(self);
      l->held = l->held << 8 | c;
      for (l->bits += 8; l->bits >= 6;) {
        l->bits -= 6;
        l->letter((uint8_t)(l->held >> l->bits) & 63);
      }
    }
    void end() {
      if (bits) letter((uint8_t)(held << (6 - bits)) & 63);
    }
  };

  template <class Tracker> static void write_body(Out &out, Tracker &tracker) {
    if (Tracker::Form::BINARY) {
      Letters letters = {out, 0, 0};
      Out binary(Letters::emit, &letters);
      tracker.body(binary);
      letters.end();
    } else {
      tracker.body(out);
    }
  }

  template <class Tracker> struct Signed { /* what a signature covers beside the numbers */
    Tracker &tracker;
    void target(Out &out) { out.put(Tracker::Form::KIND); }
    void body(Out &out) { write_body(out, tracker); }
  };

  template <class Tracker> void send(Tracker &tracker) {
    int room = port.availableForWrite();
    Out out(emit, this, at, at + (room > 1 ? room : 1));
    out.put('@');
    out.put(Tracker::Form::KIND);
    out.put(',');
    out.text(tracker.device);
    out.put(',');
    out.number(tracker.boot);
    out.put(',');
    out.number(tracker.message);
    if (tracker.seal.BYTES > 0) {
      out.put(',');
      for (uint8_t i = 0; i < tracker.seal.BYTES; i++) out.hex(tracker.seal.at(i));
    }
    out.put(':');
    write_body(out, tracker);
    out.emit = emit_end;
    out.put('*');
    out.hex((uint8_t)(crc >> 8));
    out.hex((uint8_t)crc);
    out.put('\n');
    if (at == out.at) {
      state = WAITING;
      since = millis();
    }
  }

  void start() {
    at = 0;
    crc = 0xFFFF;
    state = SENDING;
  }

  /* One byte of an answer. True: the line is whole and right. */
  bool read(uint8_t c) {
    if (c == '!') {
      part = 1;
      sum = 0xFFFF;
      kind = reason = digits = 0;
      said = 0;
      numbers[0] = numbers[1] = 0;
      return false;
    }
    if (!part) return false;
    if (c == '\n') {
      bool right = part == 5 && digits == 4 && said == sum;
      part = 0;
      return right;
    }
    if (part == 5) {
      uint8_t letter = c | 0x20;
      said = said << 4 | (uint16_t)(c <= '9' ? c - '0' : letter - 'a' + 10);
      if (c != '\r') digits++;
      return false;
    }
    if (c == '*') {
      part = 5;
      return false;
    }
    sum = crc16(sum, c);
    if (c == ',') {
      part++;
      digits = 0;
    } else if (part == 1) {
      kind = c;
    } else if (part == 4 || c > '9') {
      if (digits++ == 1) reason = c; /* the second letter tells all reasons apart that need to be */
    } else if (part < 4) {
      numbers[part - 2] = numbers[part - 2] * 10 + (c - '0');
    }
    return false;
  }

  template <class Tracker> void answered(Tracker &tracker) {
    if (kind == 'r') return tracker.hint(numbers[0]);
    if (state != WAITING) return;
    bool unnamed = kind == 'n' && !numbers[1];
    if (!unnamed && (numbers[0] != tracker.boot || numbers[1] != tracker.message)) return;
    state = IDLE;
    if (kind == 'a')
      tracker.acked();
    else if (kind != 'n' || reason == 'u') /* busy */
      tracker.later();
    else if (reason == 'r' || reason == 'i') /* crc, line */
      retry(tracker);
    else
      tracker.never();
  }

  template <class Tracker> void retry(Tracker &tracker) {
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
      : port(p), state(IDLE), tries(0), at(0), crc(0), since(0), part(0), kind(0), reason(0), digits(0), sum(0), said(0), numbers() {}

  /* Whether the sketch may print now without breaking a line of ours. */
  bool idle() const { return state != SENDING || !at; }

  template <class Tracker> void step(Tracker &tracker) {
    for (uint8_t most = 16; most && port.available() > 0; most--)
      if (read((uint8_t)port.read())) answered(tracker);
    if (state == SENDING) {
      send(tracker);
    } else if (state == WAITING) {
      if (millis() - since >= ANSWER_MS) retry(tracker);
    } else if (tracker.due()) {
      tries = 0;
      Signed<Tracker> what = {tracker};
      tracker.seal.sign(tracker, what);
      start();
    }
  }
};

}  // namespace spoorway
#endif

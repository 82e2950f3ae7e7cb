/* Journal: records in cells that keep their content without power, in slots that are used one after the other, so that all wear alike.

   A record comes from a small queue in RAM and is written a byte per step, never waiting; the last byte makes it count. From then
   on it is durable: sent until it is acknowledged, over any number of restarts. It is forgotten by clearing bits of that one byte.
   A power cut at any moment, in the middle of a byte too, leaves each record whole or absent.

   Slot: state, boot (3), lap, length, record, …, CRC (2) of all but the state. The lap counts how often the slots were gone round, and says
   where the newest record is. The first 12 cells hold the boot id, twice, in turns; the last one is Consent's. */
#ifndef SPOORWAY_JOURNAL_H
#define SPOORWAY_JOURNAL_H

namespace spoorway {

#if defined(__AVR__)
/* The EEPROM of an AVR. first, size: which part of it; size 0 = all that follows. */
class EepromCells {
  uint16_t first, size_;

  SPOORWAY_ONCE void program(uint16_t i, uint8_t value, uint8_t mode) {
    while (!ready());
    EEAR = first + i;
    EEDR = value;
    uint8_t interrupts = SREG;
    cli();
    EECR = mode | _BV(EEMPE);
    EECR |= _BV(EEPE); /* within four cycles */
    SREG = interrupts;
  }

 public:
  explicit EepromCells(uint16_t f = 0, uint16_t s = 0) : first(f), size_(s ? s : E2END + 1 - f) {}
  uint16_t size() const { return size_; }
  bool ready() const { return !(EECR & _BV(EEPE)); }
  SPOORWAY_ONCE uint8_t read(uint16_t i) const {
    while (!ready());
    EEAR = first + i;
    EECR |= _BV(EERE);
    return EEDR;
  }
  void write(uint16_t i, uint8_t value) { program(i, value, 0); }
  /* To 0, by clearing bits only: half as long, and no erasure. */
  void clear(uint16_t i) { program(i, 0, _BV(EEPM1)); }
  void settle() {} /* what was written is there when ready() says so */
};
#endif

/* Cells: size(), ready(), read(i), write(i, value), clear(i), settle() (everything written before it is durable when it returns).
   SLOT: bytes of a slot, 8 more than the longest record, at most 255. RAM: bytes of the queue before it. */
template <class Cells, uint8_t SLOT = 24, uint16_t RAM = 64> class Journal {
  enum { PENDING = 0x5A, BOOT = 1, LAP = 4, LENGTH = 5, RECORD = 6, SUM = SLOT - 2, COPY = 6, FIRST = 2 * COPY };
  Cells cells;
  uint16_t oldest, tail; /* slots, by their first cell; between them lies what waits, so one slot is always free */
  uint16_t newest;       /* that stored() has not been asked of, or 0 */
  uint16_t mark_, crc, errors_;
  uint8_t written;  /* cells of the slot that is being written */
  uint8_t stamp[4]; /* boot and lap, as in a slot */
  uint32_t stored_;
  Queue<RAM> queue;

  SPOORWAY_ONCE uint16_t after(uint16_t slot) const {
    slot += SLOT;
    return slot + SLOT < cells.size() ? slot : (uint16_t)FIRST;
  }
  SPOORWAY_ONCE void advance() {
    tail = after(tail);
    if (tail == FIRST) stamp[3]++;
  }
  SPOORWAY_ONCE uint32_t number(uint16_t at) const {
    uint8_t low = cells.read(at), middle = cells.read(at + 1);
    return (uint32_t)cells.read(at + 2) << 16 | (uint16_t)(middle << 8 | low);
  }
  SPOORWAY_ONCE uint16_t sum(uint16_t at, uint8_t count, uint16_t crc) const {
    while (count--) crc = crc16(crc, cells.read(at++));
    return crc;
  }
  /* Whether a slot ends with the sum of what is before it; then the sum of both is 0. */
  SPOORWAY_ONCE bool whole(uint16_t slot) const { return !sum(slot + BOOT, SLOT - BOOT, mark_); }
  /* The same of a boot id; there the lower byte of the sum comes first. */
  SPOORWAY_ONCE bool whole_copy(uint8_t at) const { return sum(at, 4, 0xFFFF) == (uint16_t)number(at + 4); }
  /* A cell that has its value already is not worn. */
  SPOORWAY_ONCE void keep(uint16_t at, uint8_t value) {
    crc = crc16(crc, value);
    if (cells.read(at) != value) cells.write(at, value);
  }
  SPOORWAY_ONCE void find_oldest() {
    do oldest = after(oldest);
    while (oldest != tail && !(cells.read(oldest) == PENDING && whole(oldest)));
  }

  struct Bytes { /* of the record in a slot */
    const Cells &cells;
    uint16_t at;
    uint8_t next() { return cells.read(at++); }
  };

  /* A new boot id. The copy that is written is the older one: whatever a cut leaves of it, the other is whole. */
  uint32_t count_boot() {
    uint32_t boot = 0;
    for (uint8_t at = 0; at != FIRST; at += COPY) {
      uint32_t known = number(at);
      if (known > boot && whole_copy(at)) boot = known;
    }
    boot++;
    memcpy(stamp, &boot, sizeof stamp);
    crc = 0xFFFF;
    uint8_t at = boot & 1 ? 0 : (uint8_t)COPY, end = at + 4;
    for (const uint8_t *c = stamp; at != end;) keep(at++, *c++);
    uint16_t both = crc;
    keep(at++, (uint8_t)both);
    keep(at, (uint8_t)(both >> 8));
    cells.settle();
    return whole_copy(end - 4) ? boot : 0;
  }

 public:
  typedef uint8_t Index;
  static const uint16_t LONGEST = SLOT - 8;

  explicit Journal(const Cells &c) : cells(c) {}

  uint32_t begin(uint32_t, uint16_t mark) {
    queue.begin(0, 0);
    mark_ = mark;
    newest = errors_ = 0;
    written = 0;
    stored_ = 0;
    uint32_t boot = count_boot();
    if (!boot) return 0;
    /* The tail is behind the last slot of the newest lap: laps differ by one at most. */
    uint16_t at = FIRST, end = FIRST;
    bool found = false;
    do {
      if (whole(at)) {
        uint8_t lap = cells.read(at + LAP);
        if (!found || (int8_t)(lap - stamp[3]) >= 0) {
          found = true;
          stamp[3] = lap;
          end = at;
        }
      }
      at = after(at);
    } while (at != FIRST);
    tail = end;
    if (found) advance();
    oldest = tail;
    find_oldest();
    return boot;
  }

  void open() { queue.open(); }
  void put(uint8_t c) { queue.put(c); }
  Result close() { return queue.close(LONGEST < queue.LONGEST ? LONGEST : queue.LONGEST); }

  bool any() const { return oldest != tail; }
  uint8_t size() const { return cells.read(oldest + LENGTH); }
  uint8_t at(uint8_t i) const { return cells.read(oldest + RECORD + i); }
  uint32_t boot(uint32_t) const { return number(oldest + BOOT); }
  void drop() {
    uint16_t done = oldest;
    find_oldest();
    cells.clear(done); /* last: reading after it would wait */
    cells.settle();
  }

  bool ready() const { return cells.ready(); }

  /* Moves one byte towards durability. */
  bool step() {
    if (!queue.any() || after(tail) == oldest) return false;
    uint8_t i = ++written;
    if (i < SLOT) {
      if (i == BOOT) crc = mark_;
      uint8_t value = crc >> 8; /* the second time the first is in the sum, and the low byte the high one */
      if (i < LENGTH)
        value = stamp[i - BOOT];
      else if (i < RECORD + (uint8_t)queue.size())
        value = queue.after_length(i - LENGTH);
      else if (i < SUM)
        value = cells.read(tail + i);
      keep(tail + i, value);
      return true;
    }
    written = 0;
    cells.settle();
    uint16_t done = tail;
    bool good = whole(done);
    advance();
    if (good) {
      newest = done;
      queue.drop();
      cells.write(done, PENDING);
      cells.settle();
    } else {
      errors_++; /* a cell is worn out: the next slot */
      if (oldest == done) oldest = tail;
    }
    return true;
  }

  uint16_t errors() const { return errors_; }
  uint16_t size_of_all() const {
    return (tail >= oldest ? tail - oldest : (uint16_t)(cells.size() - FIRST - 1) / SLOT * SLOT - (oldest - tail)) + queue.size_of_all();
  }
  /* The newest event of this boot that no power cut can take away; those before it can neither. */
  uint32_t stored() {
    if (newest && cells.ready()) {
      Bytes bytes = {cells, (uint16_t)(newest + RECORD + 5)}; /* behind uptime and template */
      stored_ = read_number(bytes);
      newest = 0;
    }
    return stored_;
  }

  uint16_t waiting() const { return (size_of_all() - queue.size_of_all()) / SLOT + queue.count(); }

  /* For Consent: the last cell is 0 where nobody is to be tracked. */
  bool closed() const { return false; }
  bool is_out() const { return !cells.read(cells.size() - 1); }
  bool set_out(bool out) {
    cells.write(cells.size() - 1, out ? 0 : 0xFF);
    cells.settle();
    return is_out() == out;
  }
  void erase() {
    while (any()) drop();
    written = 0;
    queue.erase();
  }
};

}  // namespace spoorway
#endif

/* Journal: records in cells that keep their content without power, in slots that are used one after the other, so that all wear alike.

   A record comes from a small queue in RAM and is written a byte per step, never waiting; the last byte makes it count. From then
   on it is durable: sent until it is acknowledged, over any number of restarts. It is forgotten by clearing bits of that one byte.
   A power cut at any moment, in the middle of a byte too, leaves each record whole or absent.

   Slot: state, length, CRC (2), boot (4), record. The first 12 cells hold the boot id, twice, in turns; the last one is Consent's. */
#ifndef SPOORWAY_JOURNAL_H
#define SPOORWAY_JOURNAL_H

namespace spoorway {

#if defined(__AVR__)
/* The EEPROM of an AVR. first, size: which part of it; size 0 = all that follows. */
class EepromCells {
  uint16_t first, size_;

  void program(uint16_t i, uint8_t value, uint8_t mode) {
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
  uint8_t read(uint16_t i) const {
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
   SLOT: bytes of a slot, 8 more than the longest record. RAM: bytes of the queue before it. */
template <class Cells, uint16_t SLOT = 24, uint16_t RAM = 64> class Journal {
  enum { PENDING = 0x5A, HEAD = 8, SLOTS_AT = 12 };
  Cells cells;
  uint16_t slots, tail, oldest, pending, mark_, errors_;
  uint8_t written; /* of the record that is being written, its head included */
  uint32_t boot_, stored_;
  Queue<RAM> queue;

  uint16_t slot(uint16_t n) const { return SLOTS_AT + n * SLOT; }
  uint16_t after(uint16_t n) const { return ++n == slots ? 0 : n; }
  uint32_t number(uint16_t at) const {
    uint32_t value = 0;
    for (uint8_t i = 4; i--;) value = value << 8 | cells.read(at + i);
    return value;
  }

  void store(uint16_t at, uint8_t value) {
    if (cells.read(at) != value) cells.write(at, value);
  }

  uint16_t sum(uint16_t at, uint16_t length, uint16_t crc) const {
    while (length--) crc = crc16(crc, cells.read(at++));
    return crc;
  }

  /* Whether the record in a slot is whole. */
  bool whole(uint16_t at) const {
    uint8_t length = cells.read(at + 1);
    if (!length || length > SLOT - HEAD) return false;
    uint16_t crc = sum(at + 4, length + 4, crc16(mark_, length));
    return cells.read(at + 2) == (uint8_t)crc && cells.read(at + 3) == (uint8_t)(crc >> 8);
  }

  struct Bytes { /* of the record in a slot */
    const Cells &cells;
    uint16_t at;
    uint8_t next() { return cells.read(at++); }
  };

  uint32_t sequence(uint16_t n) const {
    Bytes bytes = {cells, (uint16_t)(slot(n) + HEAD + 4)}; /* behind the uptime */
    return read_number(bytes);
  }

  /* A new boot id. Number before sum: whatever a cut leaves differs from a valid pair by less than the sum can miss. */
  bool count_boot() {
    uint8_t next = 0;
    boot_ = 0;
    for (uint8_t i = 0; i < 12; i += 6) {
      uint32_t boot = number(i);
      if (sum(i, 4, 0xFFFF) == (uint16_t)number(i + 4) && boot >= boot_ && boot != 0xFFFFFFFF) {
        boot_ = boot;
        next = 6 - i;
      }
    }
    boot_++;
    uint16_t crc = 0xFFFF;
    for (uint8_t i = 0; i < 4; i++) {
      uint8_t c = (uint8_t)(boot_ >> (8 * i));
      store(next + i, c);
      crc = crc16(crc, c);
    }
    store(next + 4, (uint8_t)crc);
    store(next + 5, (uint8_t)(crc >> 8));
    cells.settle();
    return number(next) == boot_ && (uint16_t)number(next + 4) == crc;
  }

  void find_oldest() {
    if (pending)
      while (cells.read(slot(oldest)) != PENDING || !whole(slot(oldest))) oldest = after(oldest);
  }

 public:
  typedef uint16_t Index;
  static const uint16_t LONGEST = SLOT - HEAD;

  explicit Journal(const Cells &c) : cells(c) {}

  uint32_t begin(uint32_t, uint16_t mark) {
    uint32_t newest_boot = 0, newest = 0;
    queue.begin(0, 0);
    mark_ = mark;
    slots = (cells.size() - SLOTS_AT - 1) / SLOT;
    tail = pending = errors_ = 0;
    written = 0;
    stored_ = 0;
    if (!count_boot()) return 0;
    for (uint16_t n = 0; n < slots; n++) {
      uint16_t at = slot(n);
      bool waits = cells.read(at) == PENDING;
      if (!whole(at)) {
        if (waits) cells.clear(at); /* of another sketch */
        continue;
      }
      pending += waits;
      uint32_t boot = number(at + 4), s = sequence(n);
      if (boot > newest_boot || (boot == newest_boot && s >= newest)) {
        newest_boot = boot;
        newest = s;
        tail = after(n);
      }
    }
    oldest = tail;
    find_oldest();
    return boot_;
  }

  void open() { queue.open(); }
  void put(uint8_t c) { queue.put(c); }
  Result close() { return queue.close(SLOT - HEAD < RAM ? SLOT - HEAD : queue.LONGEST); }

  bool any() const { return pending; }
  uint16_t size() const { return cells.read(slot(oldest) + 1); }
  uint8_t at(uint16_t i) const { return cells.read(slot(oldest) + HEAD + i); }
  uint32_t boot(uint32_t) const { return number(slot(oldest) + 4); }
  void drop() {
    uint16_t done = slot(oldest);
    pending--;
    oldest = after(oldest);
    find_oldest();
    cells.clear(done); /* last: reading after it would wait */
    cells.settle();
  }

  bool ready() const { return cells.ready(); }

  /* Moves one byte towards durability. */
  bool step() {
    uint16_t at = slot(tail);
    if (!queue.any() || cells.read(at) == PENDING) return false; /* a torn slot may be free while this one is not */
    uint8_t length = (uint8_t)queue.size(), i = written++;
    if (i < 4) {
      store(at + 4 + i, (uint8_t)(boot_ >> (8 * i)));
    } else if (i < length + 4) {
      store(at + 4 + i, queue.at(i - 4));
    } else if (i == length + 4) {
      store(at + 1, length);
    } else if (i <= length + 6) {
      uint16_t crc = sum(at + 4, length + 4, crc16(mark_, length));
      bool high = i == length + 6;
      store(at + 2 + high, (uint8_t)(high ? crc >> 8 : crc));
    } else {
      written = 0;
      cells.settle();
      if (intact(at)) {
        stored_ = sequence(tail); /* before the write: reading after it would wait */
        cells.write(at, PENDING);
        cells.settle();
        if (!pending++) oldest = tail;
        queue.drop();
      } else {
        errors_++; /* a cell is worn out: the next slot */
      }
      tail = after(tail);
    }
    return true;
  }

  /* Whether what is in the slot is what is in the queue. */
  bool intact(uint16_t at) {
    if (cells.read(at + 1) != (uint8_t)queue.size() || !whole(at)) return false;
    for (uint16_t i = 0; i < queue.size(); i++)
      if (cells.read(at + HEAD + i) != queue.at(i)) return false;
    return true;
  }

  uint16_t errors() const { return errors_; }
  uint16_t size_of_all() const { return pending * SLOT + queue.size_of_all(); }
  /* The newest event of this boot that no power cut can take away; those before it can neither. */
  uint32_t stored() { return cells.ready() || !stored_ ? stored_ : stored_ - 1; }

  uint16_t waiting() const { return pending + queue.count; }

  /* For Consent: the last cell is 0 where nobody is to be tracked. */
  bool closed() const { return false; }
  bool is_out() const { return !cells.read(cells.size() - 1); }
  bool set_out(bool out) {
    cells.write(cells.size() - 1, out ? 0 : 0xFF);
    cells.settle();
    return is_out() == out;
  }
  void erase() {
    for (uint16_t n = 0; n < slots; n++)
      if (cells.read(slot(n)) == PENDING) cells.clear(slot(n));
    cells.settle();
    pending = 0;
    written = 0;
    queue.erase();
  }
};

}  // namespace spoorway
#endif

/* Queue: records of any length in a ring of N bytes of RAM, oldest first. What does not fit is refused, never overwritten. */
#ifndef SPOORWAY_QUEUE_H
#define SPOORWAY_QUEUE_H

namespace spoorway {

template <uint16_t N> class Queue {
  enum { HEAD = N > 256 ? 2 : 1 }; /* bytes of a record's length */
  uint8_t bytes[N];
  uint16_t first, used, open_;

  uint16_t place(uint16_t i) const {
    i += first;
    return i >= N ? i - N : i;
  }

 public:
  static const uint16_t LONGEST = N - HEAD;
  uint16_t count;

  /* A store's start. mark: of the templates; what was kept under another one is not read. Answers the boot id, here the one given. */
  uint32_t begin(uint32_t boot, uint16_t) {
    first = used = count = 0;
    return boot;
  }

  /* Writing: open, put each byte, close. False: it did not fit, and nothing was kept. */
  void open() { open_ = HEAD; }
  void put(uint8_t c) {
    if (open_ < N - used) bytes[place(used + open_)] = c;
    if (open_ <= N) open_++;
  }
  Result close(uint16_t longest = LONGEST) {
    if (open_ - HEAD > longest) return LARGE;
    if (open_ > N - used) return FULL;
    uint16_t length = open_ - HEAD;
    bytes[place(used)] = (uint8_t)length;
    if (HEAD == 2) bytes[place(used + 1)] = (uint8_t)(length >> 8);
    used += open_;
    count++;
    return (Result)1;
  }

  /* Reading the oldest. */
  bool any() const { return count; }
  uint16_t size() const { return bytes[first] | (HEAD == 2 ? (uint16_t)bytes[place(1)] << 8 : 0); }
  uint8_t at(uint16_t i) const { return bytes[place(i + HEAD)]; }
  uint32_t boot(uint32_t now) const { return now; }
  void drop() {
    uint16_t length = size() + HEAD;
    first = place(length);
    used -= length;
    count--;
  }

  bool ready() const { return true; } /* to be read */
  bool step() { return false; }       /* true: it did something that takes time */
  uint16_t errors() const { return 0; }
  uint16_t size_of_all() const { return used; }
};

}  // namespace spoorway
#endif

/* Queue: records of any length in N bytes of RAM, oldest first. What does not fit is refused, never overwritten. */
#ifndef SPOORWAY_QUEUE_H
#define SPOORWAY_QUEUE_H

namespace spoorway {

template <bool SMALL> struct Counting {
  typedef uint16_t Index;
};
template <> struct Counting<true> {
  typedef uint8_t Index;
};

template <uint16_t N> class Queue {
 public:
  typedef typename Counting<(N < 255)>::Index Index;

 private:
  enum { HEAD = N > 256 ? 2 : 1 }; /* bytes of a record's length, the lowest last */
  Index used, open_;
  uint8_t bytes[N]; /* last, so that the others are near; the oldest record begins it */

  Index end_of(Index at) const { return at + HEAD + (bytes[at + HEAD - 1] | (HEAD == 2 ? (Index)((uint16_t)bytes[at] << 8) : 0)); }

 public:
  static const uint16_t LONGEST = N - HEAD;

  /* A store's start. mark: of the templates; what was kept under another one is not read. Answers the boot id, here the one given. */
  template <class Mark> uint32_t begin(uint32_t boot, const Mark &) {
    erase();
    return boot;
  }

  /* Writing: open, put each byte, close. Not 1: it did not fit, and nothing was kept. */
  void open() { open_ = HEAD; }
  SPOORWAY_ONCE void put(uint8_t c) {
    if (open_ < (Index)(N - used)) bytes[used + open_] = c;
    if (open_ <= N) open_++;
  }
  Result close(uint16_t longest = LONGEST) {
    Index end = open_, length = end - HEAD;
    if (length > longest) return LARGE;
    if (end > (Index)(N - used)) return FULL;
    if (HEAD == 2) bytes[used] = (uint8_t)(length >> 8 * (HEAD - 1));
    bytes[used + HEAD - 1] = (uint8_t)length;
    used += end;
    return (Result)1;
  }

  /* Reading the oldest. */
  bool any() const { return used; }
  Index size() const { return end_of(0) - HEAD; }
  uint8_t at(Index i) const { return bytes[HEAD + i]; }
  uint8_t after_length(Index i) const { return bytes[HEAD - 1 + i]; } /* 0: the lowest byte of its length */
  uint32_t boot(uint32_t now) const { return now; }
  SPOORWAY_ONCE void drop() {
    Index length = end_of(0);
    used -= length;
    for (Index i = 0; i != used; i++) bytes[i] = bytes[i + length];
  }

  bool ready() const { return true; } /* to be read */
  bool step() { return false; }       /* true: it did something that takes time */
  uint16_t errors() const { return 0; }
  uint16_t size_of_all() const { return used; }
  uint16_t count() const { /* of records */
    uint16_t n = 0;
    for (Index at = 0; at != used; at = end_of(at)) n++;
    return n;
  }

  /* For Consent: whether nothing is taken at all, and whether that was remembered; RAM remembers nothing. */
  bool closed() const { return false; }
  bool is_out() const { return false; }
  bool set_out(bool) { return true; }
  void erase() { used = 0; }
};

}  // namespace spoorway
#endif

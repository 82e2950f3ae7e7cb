/* Queue: records of any length in a ring of N bytes of RAM, oldest first. What does not fit is refused, never overwritten. */
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
  enum { HEAD = N > 256 ? 2 : 1 }; /* bytes of a record's length */
  Index first, used, open_;

 public:
  Index count;

 private:
  uint8_t bytes[N]; /* last, so that the others are near */

  Index place(Index i) const {
    Index end = N - first;
    return i < end ? first + i : i - end;
  }

 public:
  static const uint16_t LONGEST = N - HEAD;

  /* A store's start. mark: of the templates; what was kept under another one is not read. Answers the boot id, here the one given. */
  template <class Mark> uint32_t begin(uint32_t boot, const Mark &) {
    first = used = count = 0;
    return boot;
  }

  /* Writing: open, put each byte, close. Not 1: it did not fit, and nothing was kept. */
  void open() { open_ = HEAD; }
  void put(uint8_t c) {
    if (open_ < (Index)(N - used)) bytes[place(used + open_)] = c;
    if (open_ <= N) open_++;
  }
  Result close(uint16_t longest = LONGEST) {
    Index length = open_ - HEAD;
    if (length > longest) return LARGE;
    if (open_ > (Index)(N - used)) return FULL;
    Index end = open_;
    open_ = 0;
    put((uint8_t)length);
    if (HEAD == 2) put((uint8_t)(length >> 8 * (HEAD - 1)));
    used += end;
    count++;
    return (Result)1;
  }

  /* Reading the oldest. */
  bool any() const { return count; }
  Index size() const { return bytes[first] | (HEAD == 2 ? (Index)((uint16_t)bytes[place(1)] << 8) : 0); }
  uint8_t at(Index i) const { return bytes[place(i + HEAD)]; }
  uint32_t boot(uint32_t now) const { return now; }
  void drop() {
    Index length = size() + HEAD;
    first = place(length);
    used -= length;
    count--;
  }

  bool ready() const { return true; } /* to be read */
  bool step() { return false; }       /* true: it did something that takes time */
  uint16_t errors() const { return 0; }
  uint16_t size_of_all() const { return used; }

  /* For Consent: whether nothing is taken at all, and whether that was remembered; RAM remembers nothing. */
  bool closed() const { return false; }
  bool is_out() const { return false; }
  bool set_out(bool) { return true; }
  void erase() { first = used = count = 0; }
};

}  // namespace spoorway
#endif

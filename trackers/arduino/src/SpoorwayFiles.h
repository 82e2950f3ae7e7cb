/* Files: records in files of a flash file system, for boards that have no EEPROM: ESP32 and ESP8266 with LittleFS.

   Not part of Spoorway.h: a sketch without files needs none of it. A record comes from a small queue in RAM; step() appends it to a segment,
   closes the file and reads it back. From then on it is durable: sent until it is acknowledged, over any number of restarts. A segment is
   removed when all of it was acknowledged, and nothing is appended to one of an earlier start; so after a restart the rest of one segment
   may be sent again, which the gateway's store knows by boot and sequence. Where flash refuses a record, it is sent from RAM.

   It needs a file system that keeps a file as it was until it is closed (LittleFS does, SPIFFS and FAT do not), begun before the tracker.

   NAME      boot (4), number of the first segment (4), opted out (1), CRC (2); written anew at each start and with each segment that goes
   NAME.HEX  a segment: records, each with length (2), CRC (2), boot (4) before it */
#ifndef SPOORWAY_FILES_H
#define SPOORWAY_FILES_H

#include <FS.h>
#include <Spoorway.h>

namespace spoorway {

/* RAM: bytes of the queue before it. MOST: bytes of the longest record, which are in RAM, too. SEGMENT: bytes of a file. */
template <uint16_t RAM = 1024, uint16_t MOST = 512, uint16_t SEGMENT = 4096, class FileSystem = fs::FS> class Files {
  enum { HEAD = 8, STATE = 11, PAUSE_MS = 1000, PATH = 32, PIECE = 64 };
  enum Source { NOTHING, SEGMENTS, MEMORY }; /* where the oldest record is */
  FileSystem &files;
  const char *name;
  uint32_t limit;
  uint32_t boot_, oldest_boot, stored_, used; /* used: bytes of all segments */
  uint32_t first, next;                       /* number of the oldest segment, and of the one after the newest */
  uint32_t at_, end;                          /* in the oldest segment, of what is not acknowledged; in the newest one, where its records end */
  uint32_t failed_ms;
  uint16_t mark_, length, errors_;
  uint8_t source;
  bool growing, failed, out_; /* whether the newest segment may be appended to; whether the last write failed; whether nobody is tracked */
  Queue<RAM> queue;
  uint8_t bytes[MOST];

  struct Path {
    char text[PATH];
    Path(const char *of, uint32_t n) {
      uint8_t i = 0;
      while (of[i] && i < PATH - 10) text[i] = of[i], i++;
      text[i++] = '.';
      for (uint8_t shift = 32; shift; text[i++] = (char)Out::digit(n >> shift & 15)) shift -= 4;
      text[i] = 0;
    }
  };
  bool there(uint32_t n) { return files.exists(Path(name, n).text); }
  uint32_t size_at(uint32_t n) {
    auto file = files.open(Path(name, n).text, "r");
    return file ? (uint32_t)file.size() : 0;
  }
  bool gone(uint32_t n) {
    if (files.remove(Path(name, n).text)) return true;
    errors_++;
    return false;
  }

  static void put(uint8_t *to, uint32_t value, uint8_t count) {
    for (; count--; value >>= 8) *to++ = (uint8_t)value;
  }
  static uint32_t get(const uint8_t *from, uint8_t count) {
    uint32_t value = 0;
    while (count--) value = value << 8 | from[count];
    return value;
  }
  static uint16_t sum(uint16_t crc, const uint8_t *from, uint16_t count) {
    while (count--) crc = crc16(crc, *from++);
    return crc;
  }

  /* Whether the state is on flash now: as wanted, not only as told. */
  bool keep() {
    uint8_t state[STATE], back[STATE];
    put(state, boot_, 4);
    put(state + 4, first, 4);
    state[8] = out_;
    put(state + 9, sum(0xFFFF, state, 9), 2);
    auto file = files.open(name, "w");
    if (file) {
      file.write(state, STATE);
      file.close();
    }
    if (recall(back) && !memcmp(state, back, STATE)) return true;
    errors_++;
    return false;
  }
  bool recall(uint8_t *state) {
    auto file = files.open(name, "r");
    return file && (size_t)file.read(state, STATE) == STATE && sum(0xFFFF, state, 9) == get(state + 9, 2);
  }

  uint32_t sequence(uint16_t from) const { /* behind uptime and template */
    uint32_t value = 0;
    uint8_t c, shift = 0;
    do c = queue.at(from++), value |= (uint32_t)(c & 0x7F) << shift, shift += 7;
    while (c > 0x7F);
    return value;
  }

  /* The oldest record of the queue goes to flash. */
  bool save() {
    uint16_t count = queue.size();
    if (failed && millis() - failed_ms < PAUSE_MS) return false;
    if (used + HEAD + count > limit) {
      failed = true;
      failed_ms = millis();
      return false;
    }
    if (growing && end + HEAD + count > SEGMENT) growing = false;
    uint32_t n = growing ? next - 1 : next, from = growing ? end : 0;
    if (written(n, from, count)) {
      if (!growing) next++;
      growing = true;
      failed = false;
      end = from + HEAD + count;
      used += HEAD + count;
      stored_ = sequence(5);
      queue.drop();
      return true;
    }
    /* What is in that file behind `from` nobody knows: nothing is appended to it any more. */
    if (growing || (there(n) && !gone(n))) {
      if (!growing) next++;
      uint32_t size = size_at(n); /* 0 where it cannot be opened now */
      if (size > from) used += size - from;
    }
    growing = false;
    failed = true;
    failed_ms = millis();
    errors_++;
    return false;
  }
  bool written(uint32_t n, uint32_t from, uint16_t count) {
    Path path(name, n);
    uint8_t head[PIECE], back[PIECE];
    uint16_t crc = mark_;
    put(head, count, 2);
    put(head + 4, boot_, 4);
    crc = sum(sum(crc, head, 2), head + 4, 4);
    for (uint16_t i = 0; i < count; i++) crc = crc16(crc, queue.at(i));
    put(head + 2, crc, 2);
    auto file = files.open(path.text, from ? "a" : "w");
    if (!file) return false;
    file.write(head, HEAD);
    for (uint16_t i = 0; i < count;) {
      uint8_t piece = some(head, i, count);
      file.write(head, piece);
    }
    file.close();
    file = files.open(path.text, "r");
    if (!file || !file.seek(from) || (size_t)file.read(back, HEAD) != HEAD || get(back, 2) != count || get(back + 2, 2) != crc) return false;
    for (uint16_t i = 0; i < count;) {
      uint8_t piece = some(head, i, count);
      if ((size_t)file.read(back, piece) != piece || memcmp(head, back, piece)) return false;
    }
    return true;
  }
  uint8_t some(uint8_t *piece, uint16_t &i, uint16_t count) const { /* the next bytes of the record in the queue */
    uint8_t n = 0;
    while (n < PIECE && i < count) piece[n++] = queue.at(i++);
    return n;
  }

  /* The oldest record, wherever it is. */
  void load() {
    while (first != next) {
      auto file = files.open(Path(name, first).text, "r");
      if (!file) { /* there are too many open files, or too little memory, for now */
        errors_ += !failed;
        failed = true;
        failed_ms = millis();
        return;
      }
      uint32_t size = file.size();
      if (at_ < size) {
        uint8_t head[HEAD];
        if (file.seek(at_) && (size_t)file.read(head, HEAD) == HEAD) {
          length = (uint16_t)get(head, 2);
          oldest_boot = get(head + 4, 4);
          if (length <= MOST && (size_t)file.read(bytes, length) == length &&
              sum(sum(sum(mark_, head, 2), head + 4, 4), bytes, length) == get(head + 2, 2)) {
            source = SEGMENTS;
            return;
          }
        }
        errors_++; /* damaged, or of another sketch; as is all that follows */
        at_ = size;
      }
      file.close();
      /* The state goes first: what a cut then leaves of the segment is removed by the next start, and not sent again. */
      first++;
      if (keep()) gone(first - 1);
      at_ = 0;
      used -= size < used ? size : used;
      if (first == next) growing = false;
    }
    if (failed && queue.any()) source = MEMORY;
  }

  void clear() {
    first = next;
    at_ = used = 0;
    growing = failed = false;
    source = NOTHING;
    queue.begin(0, 0);
  }

 public:
  typedef uint16_t Index;
  static const uint16_t LONGEST = MOST < Queue<RAM>::LONGEST ? MOST : Queue<RAM>::LONGEST;

  /* where: begins the names of its files, at most 22 letters. most_bytes: of all segments. */
  explicit Files(FileSystem &system, const char *where = "/spoorway", uint32_t most_bytes = 65536)
      : files(system), name(where), limit(most_bytes), boot_(0), oldest_boot(0), stored_(0), used(0), first(1), next(1), at_(0), end(0),
        failed_ms(0), mark_(0), length(0), errors_(0), source(NOTHING), growing(false), failed(false), out_(false) {}

  /* start: the first boot id; 0: 1. Answers 0 where flash keeps nothing, or no longer knows the boot id and `start` says none. */
  uint32_t begin(uint32_t start, uint16_t mark) {
    uint8_t state[STATE];
    bool known = false, fresh = true;
    mark_ = mark;
    errors_ = 0;
    stored_ = 0;
    boot_ = start ? start : 1;
    first = 1;
    out_ = false;
    if (files.exists(name)) {
      if (recall(state)) {
        known = true;
        boot_ = get(state, 4) + 1;
        first = get(state + 4, 4);
        out_ = state[8];
      } else { /* empty: a cut while it was made, so before any event */
        auto file = files.open(name, "r");
        fresh = file && !file.size();
      }
    }
    if (!known && !fresh && !start) return boot_ = 0;
    for (uint32_t n = first - 1; n && there(n); n--) gone(n);
    next = first;
    clear();
    for (; there(next); next++) used += size_at(next);
    return keep() ? boot_ : boot_ = 0;
  }

  void open() { queue.open(); }
  void put(uint8_t c) { queue.put(c); }
  Result close() { return queue.close(LONGEST); }

  bool any() const { return source != NOTHING; }
  uint16_t size() const { return source == MEMORY ? queue.size() : length; }
  uint8_t at(uint16_t i) const { return source == MEMORY ? queue.at(i) : bytes[i]; }
  uint32_t boot(uint32_t now) const { return source == SEGMENTS ? oldest_boot : now; }
  void drop() {
    if (source == MEMORY)
      queue.drop();
    else
      at_ += HEAD + length;
    source = NOTHING;
  }

  bool ready() const { return true; }

  /* One record to flash, and the oldest one from there. */
  bool step() {
    bool done = queue.any() && source != MEMORY && save();
    if (source == NOTHING) load();
    return done;
  }

  uint16_t errors() const { return errors_; }
  uint32_t size_of_all() const { return (used > at_ ? used - at_ : 0) + queue.size_of_all(); }
  /* The newest event of this boot that no power cut can take away; those before it can neither. */
  uint32_t stored() const { return stored_; }

  /* For Consent. What is erased is first none of ours any more, then removed. */
  bool closed() const { return false; }
  bool is_out() const { return out_; }
  bool set_out(bool out) {
    out_ = out;
    return keep();
  }
  void erase() {
    uint32_t n = first;
    first = next;
    keep();
    for (; n != next; n++) gone(n);
    clear();
  }
};

}  // namespace spoorway
#endif

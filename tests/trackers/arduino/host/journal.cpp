/* The journal on the desk, in cells that count their erasures: many lives of random length, each ended in the middle of a write that is torn, and
   one cell that no longer keeps what is written. Prints lives, events stored, lost, and sent though nobody tracked them, erasures of the hottest slot in percent of the mean, the
   most events that waited, and whether the worn cell was noticed. */
#include <Spoorway.h>
#include <cstdio>
#include <cstdlib>
#include <set>
#include <utility>

static unsigned long now_ms;
unsigned long millis() { return now_ms; }
unsigned long micros() { return 0; }

enum { SIZE = 512, SLOT = 24, FIRST = 12, WORN = FIRST + 5 * SLOT + 13 /* of the event's numbers */ };
static uint8_t memory[SIZE];
static unsigned erased[SIZE];
static int left; /* of writes, before the power goes */

static uint32_t draw() {
  static uint32_t seed = 12345;
  seed ^= seed << 13;
  seed ^= seed >> 17;
  return seed ^= seed << 5;
}
struct Cut {};

struct Cells {
  uint16_t size() const { return SIZE; }
  bool ready() const { return true; }
  uint8_t read(uint16_t i) const { return memory[i]; }
  void write(uint16_t i, uint8_t value) {
    erased[i]++;
    keep(i, value, (uint8_t)draw());
  }
  void clear(uint16_t i) { keep(i, 0, memory[i] & (uint8_t)draw()); }
  void settle() {}
  static void keep(uint16_t i, uint8_t value, uint8_t noise) {
    if (!left--) {
      uint8_t torn[] = {memory[i], 0xFF, (uint8_t)(value | noise), value};
      memory[i] = torn[draw() & 3];
      throw Cut();
    }
    memory[i] = i == WORN ? (uint8_t)(value & 0xFE) : value;
  }
};

static std::set<std::pair<uint32_t, uint32_t> > taken; /* boot and sequence of what was sent, answered or not */

struct Link {
  template <class T> void step(T &tracker) {
    if (!tracker.due()) return;
    uint32_t sequence = 0;
    uint8_t i = 5, c, shift = 0; /* behind uptime and template */
    do c = tracker.store.at(i++), sequence |= (uint32_t)(c & 0x7F) << shift, shift += 7;
    while (c > 0x7F);
    for (uint8_t n = 0; n < 3; n++)
      if (tracker.store.at(tracker.store.size() - 3 + n) != 2 * n + 3) fprintf(stderr, "garbled\n"), exit(1); /* 1, 2, 3 */
    taken.insert(std::make_pair(tracker.store.boot(tracker.boot), sequence));
    if (draw() % 10 < 4) tracker.acked();
  }
  template <class T> void hang_up(T &) {}
};

static const spoorway::Template TEMPLATES[] PROGMEM = {spoorway::ENVIRONMENT};
typedef spoorway::Journal<Cells, SLOT, 64> Store;

int main() {
  for (uint16_t i = 0; i < SIZE; i++) memory[i] = 0xFF;
  std::set<std::pair<uint32_t, uint32_t> > stored, made;
  unsigned lives = 0, most = 0, errors = 0;
  uint32_t boot = 0;
  for (; lives < 3000; lives++) {
    Store store = Store(Cells());
    Link link;
    spoorway::Tracker<Link, Store> tracker(link, store);
    uint32_t known = 0;
    bool sends = lives % 4 || lives == 2999; /* else the gateway is away */
    left = lives == 2999 ? 1000000 : (int)(draw() % 400);
    try {
      tracker.begin("desk", TEMPLATES, 1);
      if (tracker.boot <= boot) return fprintf(stderr, "boot %u again\n", (unsigned)tracker.boot), 1;
      boot = tracker.boot;
      std::set<uint32_t> refused;
      for (int i = 0; i < 1500; i++) {
        now_ms += 100;
        if (i % 3 == 0 && i < 1200) {
          if (tracker.track(0, 1, 2, 3) > 0)
            made.insert(std::make_pair(boot, tracker.sequence));
          else
            refused.insert(tracker.sequence);
        }
        if (sends)
          tracker.loop();
        else
          store.step();
        for (uint32_t s = store.stored(); known < s;)
          if (!refused.count(++known)) stored.insert(std::make_pair(boot, known));
        if (store.waiting() > most) most = store.waiting();
        errors += store.errors() > 0;
      }
      if (lives == 2999)
        while (store.any()) now_ms += 100, tracker.loop();
    } catch (Cut &) {
    }
  }
  unsigned lost = 0, foreign = 0, hottest = 0, sum = 0, slots = (SIZE - FIRST - 1) / SLOT;
  for (auto &event : stored) lost += !taken.count(event);
  for (auto &event : taken) foreign += !made.count(event);
  for (unsigned slot = 0; slot < slots; slot++) { /* of the cell that each record changes: its state */
    unsigned n = erased[FIRST + slot * SLOT];
    if (slot == 5) continue; /* it has the worn cell, and is never committed */
    sum += n;
    if (n > hottest) hottest = n;
  }
  printf("%u %u %u %u %u %u %d\n", lives, (unsigned)stored.size(), lost, foreign, hottest * 100 / (sum / (slots - 1)), most, errors > 0);
}

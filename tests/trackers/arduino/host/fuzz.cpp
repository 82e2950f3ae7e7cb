/* Anything at all from the other end, for the three links in turns: it must neither break anything nor drop what was not acknowledged.

   Of the input the first byte chooses the link, the others are what is received, and every 16th byte moves the clock. */
#include <Spoorway.h>
#include <cstdlib>

static unsigned long now_ms;
unsigned long millis() { return now_ms; }
unsigned long micros() { return now_ms * 1000; }

struct Noise : Client {
  const uint8_t *bytes;
  size_t left;
  bool up;
  int connect(IPAddress, uint16_t) { return 0; }
  int connect(const char *, uint16_t) { return up = true; }
  using Print::write;
  size_t write(uint8_t) { return 1; }
  int available() { return (int)left; }
  int read() {
    if (!left) return -1;
    left--;
    if (!(left & 15)) now_ms += 700;
    return *bytes++;
  }
  int read(uint8_t *, size_t) { return 0; }
  int peek() { return -1; }
  void flush() {}
  void stop() { up = false; }
  uint8_t connected() { return up; }
  operator bool() { return true; }
};

static const spoorway::Template TEMPLATES[] PROGMEM = {spoorway::ENVIRONMENT, spoorway::STRUCTURED};

template <class Link, class Format> static void run(Link &link, Noise &noise) {
  typedef spoorway::Queue<256> Store;
  Store store;
  spoorway::Tracker<Link, Store, Format> tracker(link, store);
  tracker.begin("noise", TEMPLATES, 2, 0, 1);
  int taken = 0;
  for (int i = 0; i < 6; i++) taken += i & 1 ? tracker.track(0, 1, 2, 3) > 0 : tracker.track(1, "a\"\\\n", "b", "c", spoorway::Absent(), "1") > 0;
  for (int i = 0; noise.left && i < 20000; i++) {
    now_ms += 40;
    tracker.loop();
  }
  if (tracker.sent + tracker.refused + store.count() != taken) abort(); /* nothing vanishes uncounted */
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (!size) return 0;
  Noise noise;
  noise.bytes = data + 1;
  noise.left = size - 1;
  noise.up = false;
  now_ms = 0;
  if (data[0] % 3 == 0) {
    spoorway::SerialLine<Noise> link(noise);
    run<spoorway::SerialLine<Noise>, spoorway::Compact>(link, noise);
  } else if (data[0] % 3 == 1) {
    spoorway::Http<Noise> link(noise, "gateway");
    run<spoorway::Http<Noise>, spoorway::Json>(link, noise);
  } else {
    spoorway::Mqtt<Noise> link(noise, "gateway");
    run<spoorway::Mqtt<Noise>, spoorway::Json>(link, noise);
  }
  return 0;
}

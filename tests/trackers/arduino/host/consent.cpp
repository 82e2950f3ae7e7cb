/* Opting out with each link in the middle of whatever it does: what it wrote since, and that a late answer drops nothing of later.

   Prints a line for each case: its name, and what the link wrote after opt_out() and after opt_in(). */
#include <Spoorway.h>
#include <cstdio>
#include <cstdlib>
#include <string>

static unsigned long now_ms;
unsigned long millis() { return now_ms; }
unsigned long micros() { return 0; }
void yield() {}

struct Wire : Client {
  std::string written, heard, greeting;
  bool up = false;
  int room = 63;
  int connect(IPAddress, uint16_t) { return 0; }
  int connect(const char *, uint16_t) {
    heard = greeting;
    return up = true;
  }
  using Print::write;
  size_t write(uint8_t c) { return written += (char)c, 1; }
  int availableForWrite() { return room; }
  int available() { return (int)heard.size(); }
  int read() {
    if (heard.empty()) return -1;
    uint8_t c = (uint8_t)heard[0];
    heard.erase(0, 1);
    return c;
  }
  int read(uint8_t *, size_t) { return 0; }
  int peek() { return -1; }
  void flush() {}
  void stop() { up = false, heard.clear(); } /* what was on its way comes no more */
  uint8_t connected() { return up; }
  operator bool() { return true; }
};

static const spoorway::Template TEMPLATES[] PROGMEM = {spoorway::STRUCTURED};
typedef spoorway::Consent<spoorway::Queue<200> > Store;

static void is(bool so, const char *what) {
  if (!so) fprintf(stderr, "not so: %s\n", what), exit(1);
}

/* steps: of loop() before opt_out(). answer: to the first event, on a line: connections end. */
template <class Link, class Format> static void run(const char *name, Link &link, Wire &wire, int steps, const std::string &answer) {
  Store store;
  spoorway::Tracker<Link, Store, Format> tracker(link, store);
  is(tracker.opt_out() == spoorway::CLOSED, "opt_out() needs begin()");
  tracker.begin("desk", TEMPLATES, 1, 0, 1);
  is(tracker.track_structured(0, "one", "a") == 1 && tracker.track_structured(0, "two", "a") == 2, "two are taken");
  for (int i = 0; i < steps; i++) tracker.loop();
  wire.written.clear();
  is(tracker.opt_out() == 0 && !store.count() && !store.any() && tracker.flush(0), "nothing waits");
  std::string farewell = wire.written;
  wire.written.clear();
  for (int i = 0; i < 300; i++) {
    is(tracker.track_structured(0, "no", "a") == spoorway::OPTED_OUT && tracker.sequence == 2, "nothing is taken, and no number used");
    tracker.loop();
    now_ms += 1000;
  }
  is(wire.written.empty() && !store.count() && tracker.dropped_full + tracker.dropped_large == 0, "nothing is sent, kept or counted as lost");
  is(tracker.opt_in() == 0 && tracker.track_structured(0, "three", "a") == 3, "after opt_in() events are taken again");
  wire.heard += answer;
  for (int i = 0; i < 3; i++) tracker.loop();
  is(store.count() == 1 && tracker.sent == 0, "an answer to what was erased drops nothing");
  for (int i = 0; i < 60; i++) now_ms++, tracker.loop();
  printf("%s %d %d %s\n", name, (int)farewell.size(), wire.written.find("one") == std::string::npos && wire.written.find("two") == std::string::npos,
         wire.written.find("three") != std::string::npos ? "three" : "-");
}

int main() {
  for (int steps = 0; steps < 24; steps++) {
    Wire wire;
    spoorway::SerialLine<Wire> link(wire);
    run<spoorway::SerialLine<Wire>, spoorway::Query>("serial", link, wire, steps, "!a,1,1*4d91\n");
  }
  for (int steps = 0; steps < 4; steps++) {
    Wire wire;
    spoorway::Http<Wire> link(wire, "gateway");
    run<spoorway::Http<Wire>, spoorway::Query>("http", link, wire, steps, "");
  }
  for (int steps = 0; steps < 5; steps++) {
    Wire wire;
    spoorway::Mqtt<Wire> link(wire, "gateway");
    wire.greeting = std::string("\x20\2\0\0", 4);
    run<spoorway::Mqtt<Wire>, spoorway::Query>("mqtt", link, wire, steps, "");
  }
}

/* Compact frames and serial lines as the library writes them: a case per line on stdin, hex digits or the line on stdout.

   c MARK BOOT SEQUENCE UPTIME EARLIER VALUE…   number, "-" = absent;  the template is ENVIRONMENT
   q BOOT MESSAGE NAME KEY|- BODY…              a line of kind q with that body */
#include <Spoorway.h>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <sstream>
#include <string>

static unsigned long now_ms;
unsigned long millis() { return now_ms; }
unsigned long micros() { return 0; }

struct Printed { /* a link: hex digits of what is to be sent */
  static void emit(void *, uint8_t c) { printf("%02x", c); }
  template <class T> void step(T &tracker) {
    if (!tracker.due()) return;
    spoorway::Out out(emit, this);
    tracker.body(out);
    printf("\n");
    tracker.acked();
  }
};

struct Old : spoorway::Queue<200> { /* a store whose oldest record may be of an earlier boot */
  uint32_t boot_;
  uint32_t boot(uint32_t) const { return boot_; }
};

struct Desk : Stream {
  int available() { return 0; }
  int read() { return -1; }
  int peek() { return -1; }
  int availableForWrite() { return 7; } /* so that every line goes out in pieces */
  using Print::write;
  size_t write(uint8_t c) { return putchar(c), 1; }
};

struct Body { /* a format: what the case says */
  static const char KIND = 'q';
  static const bool BINARY = false;
  static std::string text;
  template <class T, class Index> struct Writer : spoorway::Out {
    void body() { this->text(Body::text.c_str()); }
  };
};
std::string Body::text;

static const spoorway::Template TEMPLATES[] PROGMEM = {spoorway::ENVIRONMENT};

static void frame(std::istringstream &in) {
  unsigned long mark, boot, sequence, uptime, earlier;
  std::string value[3];
  in >> mark >> boot >> sequence >> uptime >> earlier >> value[0] >> value[1] >> value[2];
  Old store;
  store.boot_ = (uint32_t)boot;
  Printed link;
  spoorway::Tracker<Printed, Old, spoorway::Compact> tracker(link, store);
  now_ms = uptime;
  tracker.begin("desk", TEMPLATES, 1, 0, earlier ? (uint32_t)boot + 1 : (uint32_t)boot);
  tracker.sequence = (uint32_t)sequence - 1;
  if (value[0] == "-" && value[2] == "-" && value[1] == "-")
    tracker.track(0, spoorway::Absent(), spoorway::Absent(), spoorway::Absent());
  else if (value[0] == "-")
    tracker.track(0, spoorway::Absent(), atoi(value[1].c_str()), spoorway::Absent());
  else
    tracker.track(0, atoi(value[0].c_str()), atoi(value[1].c_str()), atoi(value[2].c_str()));
  now_ms = mark;
  tracker.loop();
}

template <class Seal> static void line(uint32_t boot, uint32_t message, const std::string &name, const Seal &seal) {
  spoorway::Queue<64> store;
  Desk desk;
  spoorway::SerialLine<Desk> link(desk);
  spoorway::Tracker<spoorway::SerialLine<Desk>, spoorway::Queue<64>, Body, Seal> tracker(link, store, seal);
  tracker.begin(name.c_str(), TEMPLATES, 1, 0, boot);
  tracker.boot = boot;
  tracker.message = message - 1;
  tracker.track(0, 1, 2, 3);
  for (int i = 0; i < 1000 && tracker.resent == 0; i++) tracker.loop();
}

int main() {
  std::string text;
  while (std::getline(std::cin, text)) {
    std::istringstream in(text);
    std::string kind, name, key;
    in >> kind;
    if (kind == "c") {
      frame(in);
    } else {
      uint32_t boot, message;
      in >> boot >> message >> name >> key;
      if (name == "-") name = "";
      in.get();
      std::getline(in, Body::text);
      uint8_t bytes[32];
      for (int i = 0; i < 32 && key != "-"; i++) bytes[i] = (uint8_t)strtoul(key.substr(2 * i, 2).c_str(), 0, 16);
      if (key == "-")
        line(boot, message, name, spoorway::Open());
      else
        line(boot, message, name, spoorway::Hmac(bytes));
    }
    fflush(stdout);
  }
}

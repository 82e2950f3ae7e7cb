/* A board with a journal in files, as a library that a program beside it switches on and off: its file system is that program's, its network
   is a real socket, its clock real time and whatever is skipped. */
#include <SpoorwayFiles.h>
#include <new>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <unistd.h>

static unsigned long skipped_ms;
unsigned long millis() {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (unsigned long)(uint32_t)(now.tv_sec * 1000UL + now.tv_nsec / 1000000UL + skipped_ms);
}
unsigned long micros() { return millis() * 1000; }
void yield() {}

static bool power;     /* off: nothing reaches the network any more */
static uint16_t tcp;   /* the gateway's port; 0: there is none */
static uint32_t drawn; /* of the chance that decides which answers are lost */
static unsigned lost_percent;

struct Wire : Client {
  int fd;
  bool deaf;
  Wire() : fd(-1), deaf(false) {}
  int connect(IPAddress, uint16_t) { return 0; }
  int connect(const char *, uint16_t) {
    stop();
    if (!power || !tcp) return 0;
    struct sockaddr_in to = {};
    to.sin_family = AF_INET;
    to.sin_port = htons(tcp);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    if (::connect(fd, (struct sockaddr *)&to, sizeof to)) stop();
    drawn = drawn * 1664525u + 1013904223u;
    deaf = (drawn >> 16) % 100 < lost_percent;
    return fd >= 0;
  }
  size_t write(uint8_t c) { return write(&c, 1); }
  size_t write(const uint8_t *bytes, size_t n) {
    if (!power || fd < 0) return 0;
    return send(fd, bytes, n, MSG_NOSIGNAL) == (ssize_t)n ? n : 0;
  }
  int available() {
    uint8_t bytes[512];
    if (fd < 0) return 0;
    ssize_t n = recv(fd, bytes, sizeof bytes, MSG_PEEK | MSG_DONTWAIT);
    if (n == 0 || (n > 0 && deaf)) return stop(), 0; /* the gateway has it, and the board never learns that */
    return n > 0 ? (int)n : 0;
  }
  int read() {
    uint8_t c;
    return recv(fd, &c, 1, MSG_DONTWAIT) == 1 ? c : -1;
  }
  int read(uint8_t *bytes, size_t n) { return (int)recv(fd, bytes, n, MSG_DONTWAIT); }
  int peek() { return -1; }
  void flush() {}
  void stop() {
    if (fd >= 0) ::close(fd);
    fd = -1;
  }
  uint8_t connected() { return fd >= 0; }
  operator bool() { return fd >= 0; }
};

static const spoorway::Template TEMPLATES[] PROGMEM = {spoorway::ENVIRONMENT, spoorway::STRUCTURED};
static const char *const ABOUT[] = {"aid", "cuts", 0};
typedef spoorway::Files<256, 160, 512> Files; /* small, so that segments begin and end */
typedef spoorway::Consent<Files> Store;
typedef spoorway::Http<Wire> Link;

struct Board {
  fs::FS files;
  Store store;
  Wire wire;
  Link link;
  spoorway::Tracker<Link, Store> tracker;
  Board(const fs::Calls *calls, uint32_t most) : files(calls), store(Files(files, "/queue", most)), link(wire, "127.0.0.1"), tracker(link, store) {}
  ~Board() { wire.stop(); }
};
static Board *board;

extern "C" {

/* Answers the boot id, 0 where it has none. */
uint32_t power_on(const fs::Calls *calls, uint16_t port, unsigned percent, uint32_t seed, uint32_t most) {
  delete board;
  power = true;
  tcp = port;
  lost_percent = percent;
  drawn = seed;
  board = new Board(calls, most);
  board->tracker.begin("cuts", TEMPLATES, 2, ABOUT);
  return board->tracker.boot;
}
void power_off() { power = false; }
void plug(uint16_t port) { tcp = port; }

/* An event with a text of so many letters: its sequence, or why it was not taken. */
int32_t track(uint16_t letters) {
  static char text[512];
  memset(text, 'x', letters);
  text[letters] = 0;
  return board->tracker.track_structured(1, "board", "lives", text);
}
int32_t opt(bool out) { return out ? board->tracker.opt_out() : board->tracker.opt_in(); }
bool flush(uint32_t ms) { return board->tracker.flush(ms); }
uint32_t stored() { return board->store.stored(); }
uint32_t waiting() { return board->store.size_of_all(); }
uint16_t errors() { return board->store.errors(); }
uint16_t refused() { return board->tracker.refused; }

/* So many calls of loop(), fewer where nothing waits or there is no power; back-offs are skipped, answers are waited for. */
void pump(unsigned most) {
  while (most-- && power && board->store.size_of_all()) {
    int32_t rest = (int32_t)(board->tracker.sent_ms - millis());
    if (board->wire.fd >= 0) {
      struct pollfd one = {board->wire.fd, POLLIN, 0};
      poll(&one, 1, 50);
    } else if (rest > 0) {
      skipped_ms += rest;
    }
    board->tracker.loop();
  }
}
/* One call of loop(). */
void loop() { board->tracker.loop(); }
void skip(uint32_t ms) { skipped_ms += ms; }
}

/* Http: a message per request over any Client (Ethernet, WiFi, GSM, TLS), POST for Json and Compact, GET for Query.

   Nothing is waited for: connect() is the Client's own and tried once per back-off; the answer is read as it comes. */
#ifndef SPOORWAY_HTTP_H
#define SPOORWAY_HTTP_H

namespace spoorway {

/* Collects bytes, so that a Client sends few packets. */
template <class Port> struct Packet {
  Port &port;
  uint8_t n, bytes[32];
  explicit Packet(Port &p) : port(p), n(0) {}
  static void emit(void *self, uint8_t c) {
    Packet *p = static_cast<Packet *>(self);
    p->bytes[p->n++] = c;
    if (p->n == sizeof p->bytes) p->end();
  }
  void end() {
    if (n) port.write(bytes, n);
    n = 0;
  }
};

/* A header's name, so that it need not be kept: letters in any case. */
constexpr uint16_t name_mark(const char *p, uint16_t mark = 0) {
  return *p ? name_mark(p + 1, (uint16_t)(mark * 31 + (*p | 0x20))) : mark;
}

template <class Port = Client> class Http {
  enum State { IDLE, WAITING };
  enum { ANSWER_MS = 10000 };
  enum Part { STATUS, NAME_, VALUE, BODY };
  Port &port;
  const char *host;
  uint16_t tcp_port;
  uint8_t state, part, ended;
  uint16_t status, mark, retry_s, length, got;

  struct Signed { /* what a signature covers beside the numbers */
    template <class Tracker> static void target(Tracker &tracker) { path(tracker); }
    template <class Tracker> static void body(Tracker &tracker) {
      if (Tracker::Form::KIND != 'q') tracker.body();
    }
  };
  template <class Tracker> static void path(Tracker &tracker) {
    tracker.flash(Tracker::Form::path());
    if (Tracker::Form::KIND == 'q') tracker.body();
  }

  template <class Tracker> SPOORWAY_ONCE void send(Tracker &tracker) {
    tracker.template sign<Signed>(tracker);
    uint16_t length = 0;
    tracker.to(Out::count, &length);
    Signed::body(tracker);
    Packet<Port> packet(port);
    tracker.to(Packet<Port>::emit, &packet);
    tracker.flash(Tracker::Form::KIND == 'q' ? PSTR("GET ") : PSTR("POST "));
    path(tracker);
    tracker.flash(PSTR(" HTTP/1.1\r\nHost: "));
    tracker.text(host);
    tracker.flash(PSTR("\r\nConnection: close"));
    if (Tracker::BYTES > 0) { /* a name alone would be refused */
      tracker.flash(PSTR("\r\nSpoorway-Device: "));
      tracker.text(tracker.device);
      tracker.flash(PSTR("\r\nSpoorway-Boot: "));
      tracker.number(tracker.boot);
      tracker.flash(PSTR("\r\nSpoorway-Sequence: "));
      tracker.number(tracker.message);
      tracker.flash(PSTR("\r\nSpoorway-Signature: "));
      for (uint8_t i = 0; i < Tracker::BYTES; i++) tracker.hex(tracker.signature(i));
    }
    if (Tracker::Form::KIND != 'q') {
      tracker.flash(Tracker::Form::BINARY ? PSTR("\r\nContent-Length: ") : PSTR("\r\nContent-Type: application/json\r\nContent-Length: "));
      tracker.number(length);
    }
    tracker.flash(PSTR("\r\n\r\n"));
    Signed::body(tracker);
    packet.end();
  }

  void read(uint8_t c) {
    if (part == BODY) {
      got++;
    } else if (c == '\n') {
      part = ended ? BODY : NAME_; /* an empty line ends the head */
      ended = 1;
      mark = 0;
    } else if (c != '\r') {
      ended = 0;
      uint8_t digit = c - '0';
      if (part == STATUS) { /* HTTP/1.1 200 OK: the number between the spaces */
        if (c == ' ')
          mark++;
        else if (mark == 1 && digit < 10)
          status = status * 10 + digit;
      } else if (part == NAME_) {
        if (c == ':')
          part = VALUE;
        else
          mark = (uint16_t)(mark * 31 + (c | 0x20));
      } else if (digit < 10) {
        if (mark == name_mark("retry-after"))
          retry_s = retry_s * 10 + digit;
        else if (mark == name_mark("content-length"))
          length = length * 10 + digit;
      }
    }
  }

  template <class Tracker> void answered(Tracker &tracker) {
    port.stop();
    state = IDLE;
    if (part == BODY && got >= length) {
      if (status >= 200 && status < 300) return tracker.rest(0), tracker.acked();
      if (status == 400 || status == 404 || status == 409 || status == 410 || status == 413 || status == 422) return tracker.rest(0), tracker.never();
    }
    tracker.again();
    tracker.later((uint32_t)retry_s * 1000);
  }

 public:
  /* name: a host name or address; it must stay where it is. */
  constexpr Http(Port &client, const char *name, uint16_t at = 80)
      : port(client), host(name), tcp_port(at), state(IDLE), part(0), ended(0), status(0), mark(0), retry_s(0), length(0), got(0) {}

  template <class Tracker> void hang_up(Tracker &) {
    port.stop();
    state = IDLE;
  }

  template <class Tracker> void step(Tracker &tracker) {
    if (state == IDLE) {
      if (!tracker.due()) return;
      if (!port.connect(host, tcp_port)) return tracker.later();
      part = STATUS;
      status = mark = retry_s = length = got = 0;
      ended = 0;
      send(tracker);
      tracker.rest(ANSWER_MS);
      state = WAITING;
      return;
    }
    for (uint8_t most = 64; most && port.available() > 0; most--) read((uint8_t)port.read());
    if (part == BODY && got >= length)
      answered(tracker);
    else if (!tracker.resting() || (!port.connected() && port.available() <= 0))
      answered(tracker);
  }
};

template <class Port> struct Nameless<Http<Port> > {
  enum { YES = 1 };
};

}  // namespace spoorway
#endif

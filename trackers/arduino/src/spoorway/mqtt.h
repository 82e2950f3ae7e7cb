/* Mqtt: a small part of MQTT 3.1.1 over any Client: CONNECT with a last will, PUBLISH with QoS 1, one at a time, PINGREQ.

   A PUBACK of Spoorway's listener means that the message is on disk. Nothing is waited for but connect(), once per back-off. */
#ifndef SPOORWAY_MQTT_H
#define SPOORWAY_MQTT_H

namespace spoorway {

#define SPOORWAY_WILL "e=se&p=iot&tv=ino-" SPOORWAY_VERSION "&se_ca=device&se_ac=lost"

template <class Port = Client> class Mqtt {
  enum State { OFF, READY, CONNECT = 0x10, PUBLISH = 0x32, PINGREQ = 0xC0 }; /* or the packet whose answer is waited for */
  enum { ANSWER_MS = 10000, KEEP_ALIVE_S = 60, ID = 0x80 };
  Port &port;
  const char *host, *user, *password;
  uint16_t tcp_port;
  uint8_t state, got, last; /* of a packet that is being read: how far it is, and its last byte */

  static void length(Out &out, uint8_t n) { /* of a text; it has 16 bits, and ours are short */
    out.put(0);
    out.put(n);
  }
  static void text(Out &out, const char *p) {
    length(out, (uint8_t)strlen(p));
    out.text(p);
  }
  template <class Tracker> static void topic(Tracker &tracker, const char *of, uint8_t more) {
    length(tracker, (uint8_t)(9 + more + strlen(tracker.device)));
    tracker.flash(PSTR("spoorway/"));
    tracker.text(tracker.device);
    tracker.flash(of);
  }

  template <class Tracker> void write(Tracker &tracker, uint8_t type) {
    if (type == CONNECT) {
      length(tracker, 4);
      tracker.flash(PSTR("MQTT\4"));
      tracker.put(user ? 0xCE : 0x0E); /* user, password; will with QoS 1; clean session */
      length(tracker, KEEP_ALIVE_S);
      text(tracker, tracker.device);
      topic(tracker, PSTR("/tp1"), 4);
      length(tracker, sizeof SPOORWAY_WILL - 1);
      tracker.flash(PSTR(SPOORWAY_WILL));
      if (user) {
        text(tracker, user);
        text(tracker, password);
      }
    } else if (type == PUBLISH) {
      topic(tracker, Tracker::Form::topic(), Tracker::Form::TOPIC);
      tracker.put(ID); /* the identifier: never 0, and another one for each of 256 messages, of which one at a time is on its way */
      tracker.put((uint8_t)tracker.message);
      tracker.body();
    }
  }

  template <class Tracker> SPOORWAY_ONCE void send(Tracker &tracker, uint8_t type) {
    uint16_t n = 0;
    tracker.to(Out::count, &n);
    write(tracker, type);
    Packet<Port> packet(port);
    tracker.to(Packet<Port>::emit, &packet);
    tracker.put(type);
    for (; n > 0x7F; n >>= 7) tracker.put((uint8_t)n | 0x80);
    tracker.put((uint8_t)n);
    write(tracker, type);
    packet.end();
    tracker.rest(ANSWER_MS);
    state = type;
  }

  template <class Tracker> SPOORWAY_ONCE void off(Tracker &tracker) {
    port.stop();
    if (state == PUBLISH) tracker.again();
    state = OFF;
    tracker.later();
  }

  /* One byte from the gateway; true: the last of a packet. All that may come have two bytes, or none (PINGRESP), and the type behind that of
     their question. One that answers nothing is not heard; without its answer a question ends the connection. */
  enum { END = 4, OTHER = 8 }; /* of got: that the packet is whole, and that it answers nothing */
  template <class Tracker> bool read(Tracker &tracker, uint8_t c) {
    if (!got++) {
      if (c != (uint8_t)((state & 0xF0) + 0x10)) got |= OTHER;
    } else if ((got & ~OTHER) == 2) {
      if (c > 2) return off(tracker), true;
      got += 2 - c;
    } else {
      last = c;
    }
    if (!(got & END)) return false;
    bool heard = !(got & OTHER);
    got = 0;
    if (!heard) return true;
    if (state == CONNECT && last) return off(tracker), true;
    if (state == PUBLISH) {
      if (last != (uint8_t)tracker.message) return true;
      tracker.acked();
    }
    state = READY;
    tracker.rest(KEEP_ALIVE_S * 500UL);
    return true;
  }

 public:
  /* name, password: of `spoorway device add`, or 0. All texts have at most 255 letters, and must stay where they are. */
  constexpr Mqtt(Port &client, const char *name, uint16_t at = 1883, const char *login = 0, const char *secret = 0)
      : port(client), host(name), user(login), password(secret), tcp_port(at), state(OFF), got(0), last(0) {}

  bool online() const { return state != OFF && state != CONNECT; }

  /* With a farewell, so that the last will is not told. */
  template <class Tracker> void hang_up(Tracker &) {
    static const uint8_t DISCONNECT[] = {0xE0, 0};
    if (online()) port.write(DISCONNECT, sizeof DISCONNECT);
    port.stop();
    state = OFF;
  }

  template <class Tracker> void step(Tracker &tracker) {
    bool resting = tracker.resting();
    if (state == OFF) {
      if (resting) return;
      got = 0;
      if (port.connect(host, tcp_port))
        send(tracker, CONNECT);
      else
        tracker.later();
      return;
    }
    while (port.available() > 0)
      if (read(tracker, (uint8_t)port.read())) return;
    if (!port.connected() || (state != READY && !resting)) {
      off(tracker);
    } else if (state == READY && tracker.store.any()) {
      tracker.begin_message();
      send(tracker, PUBLISH);
    } else if (!resting) {
      send(tracker, PINGREQ);
    }
  }
};

}  // namespace spoorway
#endif

/* Mqtt: a small part of MQTT 3.1.1 over any Client: CONNECT with a last will, PUBLISH with QoS 1, one at a time, PINGREQ.

   A PUBACK of Spoorway's listener means that the message is on disk. Nothing is waited for but connect(), once per back-off. */
#ifndef SPOORWAY_MQTT_H
#define SPOORWAY_MQTT_H

namespace spoorway {

#define SPOORWAY_WILL "e=se&p=iot&tv=ino-" SPOORWAY_VERSION "&se_ca=device&se_ac=lost"

template <class Port = Client> class Mqtt {
  enum State { OFF, READY, CONNECT = 0x10, PUBLISH = 0x32, PINGREQ = 0xC0 }; /* or the packet whose answer is waited for */
  enum { ANSWER_MS = 10000, KEEP_ALIVE_S = 60 };
  Port &port;
  const char *host, *user, *password;
  uint16_t tcp_port;
  uint8_t state, got, bytes[4];

  static void two(Out &out, uint16_t n) {
    out.put((uint8_t)(n >> 8));
    out.put((uint8_t)n);
  }
  static void text(Out &out, const char *p) {
    two(out, (uint16_t)strlen(p));
    out.text(p);
  }
  template <class Tracker> static void topic(Tracker &tracker, const char *of, uint8_t length) {
    two(tracker, (uint16_t)(9 + length + strlen(tracker.device)));
    tracker.flash(PSTR("spoorway/"));
    tracker.text(tracker.device);
    tracker.flash(of);
  }

  template <class Tracker> static uint16_t id(Tracker &tracker) { return (uint16_t)tracker.message | 0x8000; } /* is never 0 */

  template <class Tracker> void write(Tracker &tracker, uint8_t type) {
    if (type == CONNECT) {
      tracker.put(0); /* by hand: a text in flash ends at a 0 */
      tracker.flash(PSTR("\4MQTT\4"));
      tracker.put(user ? 0xCE : 0x0E); /* user, password; will with QoS 1; clean session */
      two(tracker, KEEP_ALIVE_S);
      text(tracker, tracker.device);
      topic(tracker, PSTR("/tp1"), 4);
      two(tracker, sizeof SPOORWAY_WILL - 1);
      tracker.flash(PSTR(SPOORWAY_WILL));
      if (user) {
        text(tracker, user);
        text(tracker, password);
      }
    } else if (type == PUBLISH) {
      topic(tracker, Tracker::Form::topic(), Tracker::Form::TOPIC);
      two(tracker, id(tracker));
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

  /* A packet from the gateway: all that may come have two bytes, or none (PINGRESP), and the type behind that of their question. */
  template <class Tracker> void answered(Tracker &tracker) {
    if (bytes[0] == (state & 0xF0) + 0x10) {
      if (state == CONNECT && bytes[3]) return off(tracker);
      if (state == PUBLISH) {
        if ((uint16_t)(bytes[2] << 8 | bytes[3]) != id(tracker)) return;
        tracker.acked();
      }
      state = READY;
      tracker.rest(KEEP_ALIVE_S * 500UL);
    } else if (bytes[0] != 0x40 && bytes[0] != 0xD0) {
      off(tracker);
    }
  }

 public:
  /* name, password: of `spoorway device add`, or 0. All texts must stay where they are. */
  constexpr Mqtt(Port &client, const char *name, uint16_t at = 1883, const char *login = 0, const char *secret = 0)
      : port(client), host(name), user(login), password(secret), tcp_port(at), state(OFF), got(0), bytes() {}

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
    for (uint8_t most = 16; most && port.available() > 0; most--) {
      bytes[got++] = (uint8_t)port.read();
      if (got < 2) continue;
      if (bytes[1] > 2) return off(tracker);
      if (got < bytes[1] + 2) continue;
      got = 0;
      return answered(tracker);
    }
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

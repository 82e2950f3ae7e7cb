/* Mqtt: a small part of MQTT 3.1.1 over any Client: CONNECT with a last will, PUBLISH with QoS 1, one at a time, PINGREQ.

   A PUBACK of Spoorway's listener means that the message is on disk. Nothing is waited for but connect(), once per back-off. */
#ifndef SPOORWAY_MQTT_H
#define SPOORWAY_MQTT_H

namespace spoorway {

template <class Port = Client> class Mqtt {
  enum State { OFF, GREETING, READY, WAITING, PINGING };
  enum { ANSWER_MS = 10000, KEEP_ALIVE_S = 60 };
  Port &port;
  const char *host, *user, *password;
  uint16_t tcp_port;
  uint8_t state, got, bytes[4];
  uint32_t since;

  static void two(Out &out, uint16_t n) {
    out.put((uint8_t)(n >> 8));
    out.put((uint8_t)n);
  }
  static void text(Out &out, const char *p) {
    two(out, (uint16_t)strlen(p));
    out.text(p);
  }
  static void topic(Out &out, const char *device, const char *of) {
    two(out, (uint16_t)(9 + strlen(device) + strlen_P(of)));
    out.flash(PSTR("spoorway/"));
    out.text(device);
    out.flash(of);
  }
  static const char *will() { return PSTR("e=se&p=iot&tv=ino-" SPOORWAY_VERSION "&se_ca=device&se_ac=lost"); }

  template <class Tracker> void greeting(Out &out, Tracker &tracker) {
    out.put(0); /* by hand: a text in flash ends at a 0 */
    out.flash(PSTR("\4MQTT\4"));
    out.put(user ? 0xCE : 0x0E);       /* user, password; will with QoS 1; clean session */
    two(out, KEEP_ALIVE_S);
    text(out, tracker.device);
    topic(out, tracker.device, PSTR("/tp1"));
    two(out, (uint16_t)strlen_P(will()));
    out.flash(will());
    if (user) {
      text(out, user);
      text(out, password);
    }
  }
  template <class Tracker> void event(Out &out, Tracker &tracker) {
    topic(out, tracker.device, Tracker::Form::topic());
    two(out, (uint16_t)tracker.message);
    tracker.body(out);
  }

  template <class Tracker> void write(Out &out, Tracker &tracker, uint8_t type) {
    if (type == 0x10) {
      greeting(out, tracker);
    } else if (type == 0x32) {
      event(out, tracker);
    }
  }

  template <class Tracker> void send(Tracker &tracker, uint8_t type, State next) {
    Out count;
    write(count, tracker, type);
    Packet<Port> packet(port);
    Out out(Packet<Port>::emit, &packet);
    out.put(type);
    uint16_t n = count.at;
    for (; n > 0x7F; n >>= 7) out.put((uint8_t)n | 0x80);
    out.put((uint8_t)n);
    write(out, tracker, type);
    packet.end();
    since = millis();
    state = next;
  }

  template <class Tracker> void off(Tracker &tracker) {
    port.stop();
    if (state == WAITING) tracker.again();
    state = OFF;
    tracker.later();
  }

  /* A packet from the gateway: all that may come have two bytes, or none (PINGRESP). */
  template <class Tracker> void answered(Tracker &tracker) {
    uint16_t n = (uint16_t)(bytes[2] << 8 | bytes[3]);
    if (bytes[0] == 0x20 && state == GREETING && !bytes[3]) {
      state = READY;
    } else if (bytes[0] == 0x40 && state == WAITING && n == (uint16_t)tracker.message) {
      state = READY;
      tracker.acked();
    } else if (bytes[0] == 0xD0) {
      if (state == PINGING) state = READY;
    } else if (bytes[0] != 0x40) {
      off(tracker);
    }
  }

 public:
  /* name, password: of `spoorway device add`, or 0. All texts must stay where they are. */
  constexpr Mqtt(Port &client, const char *name, uint16_t at = 1883, const char *login = 0, const char *secret = 0)
      : port(client), host(name), user(login), password(secret), tcp_port(at), state(OFF), got(0), bytes(), since(0) {}

  bool online() const { return state >= READY; }

  template <class Tracker> void step(Tracker &tracker) {
    if (state == OFF) {
      if (tracker.resting()) return;
      got = 0;
      if (port.connect(host, tcp_port))
        send(tracker, 0x10, GREETING);
      else
        tracker.later();
      return;
    }
    for (uint8_t most = 16; most && state != OFF && port.available() > 0; most--) {
      bytes[got++] = (uint8_t)port.read();
      if (got > 1 && bytes[1] > 2) return off(tracker);
      if (got > 1 && got == bytes[1] + 2) {
        got = 0;
        answered(tracker);
      }
    }
    uint32_t silent = millis() - since;
    if (state == OFF) return;
    if (!port.connected() || (state != READY && silent >= ANSWER_MS)) {
      off(tracker);
    } else if (state == READY && tracker.due()) {
      if (!(uint16_t)tracker.message) tracker.message++; /* no packet identifier */
      send(tracker, 0x32, WAITING);
    } else if (state == READY && silent >= KEEP_ALIVE_S * 500UL) {
      send(tracker, 0xC0, PINGING);
    }
  }
};

}  // namespace spoorway
#endif

// Signs messages of 0 to 140 bytes, each with a key that the signature before changed: so the last one is right only if all are.
#include <Spoorway.h>

volatile uint8_t known[17]; // for whoever looks into the RAM: the last signature, and how many there were
static uint8_t key[32];

struct Message { // what a seal asks of a tracker and a link
  void (*emit)(void *, uint8_t);
  void *self;
  uint8_t length;
  void to(void (*e)(void *, uint8_t), void *s) {
    emit = e;
    self = s;
  }
  void put(uint8_t c) { emit(self, c); }
  void who(uint8_t between) { put(between); }
  static void target(Message &) {}
  static void body(Message &m) {
    for (uint8_t i = 0; i < m.length; i++) m.put(i * 37 ^ m.length);
  }
};

static spoorway::Hmac seal(key);
static Message message;

void setup() {
  for (message.length = 0; message.length <= 140; message.length++) {
    seal.sign<Message>(message);
    for (uint8_t i = 0; i < 16; i++) known[i] = key[i] = seal.signature(i);
    known[16]++;
  }
}

void loop() {}

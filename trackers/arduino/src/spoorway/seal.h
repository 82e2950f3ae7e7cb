/* Open: nobody proves anything. Hmac: HMAC-SHA256 with a device's key, in 82 bytes of RAM and 156 of stack where it is used.

   What is signed is DEVICE LF BOOT LF SEQUENCE LF TARGET LF BODY, as docs/devices.md says. */
#ifndef SPOORWAY_SEAL_H
#define SPOORWAY_SEAL_H

namespace spoorway {

static const uint32_t SHA256_K[64] PROGMEM = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
    0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
    0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
    0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
    0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
    0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
static const uint32_t SHA256_START[8] PROGMEM = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                                0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

/* Turns a word by a few bits, right or left. AVRs have no barrel shifter: whole bytes are turned by copying, see below. */
#ifdef __AVR__
inline __attribute__((noinline)) uint32_t turn_right(uint32_t x, uint8_t bits) {
  do __asm__("bst %A0,0\n ror %D0\n ror %C0\n ror %B0\n ror %A0\n bld %D0,7" : "+r"(x));
  while (--bits);
  return x;
}
inline __attribute__((noinline)) uint32_t turn_left(uint32_t x, uint8_t bits) {
  do __asm__("bst %D0,7\n rol %A0\n rol %B0\n rol %C0\n rol %D0\n bld %A0,0" : "+r"(x));
  while (--bits);
  return x;
}
#else
inline uint32_t turn_right(uint32_t x, uint8_t bits) { return x >> bits | x << (32 - bits); }
inline uint32_t turn_left(uint32_t x, uint8_t bits) { return x << bits | x >> (32 - bits); }
#endif

class Sha256 {
  uint32_t h[8], w[16];
  uint16_t length;

  static uint32_t by_byte(uint32_t x) { return x >> 8 | x << 24; }
  static uint32_t by_half(uint32_t x) { return x >> 16 | x << 16; }

  void block() {
    uint32_t s[8];
    memcpy(s, h, sizeof h);
    const uint32_t *k = SHA256_K;
    for (uint8_t i = 0; i < 64; i++) {
      uint32_t x = s[4], *now = w + (i & 15);
      /* turned by 6, 11 and 25, each from the one before; so below by 2, 13 and 22, by 7 and 18, by 17 and 19 */
      uint32_t sum = s[7] + *now + pgm_read_dword(k++) + (s[6] ^ (x & (s[5] ^ s[6])));
      sum += turn_left(by_byte(x ^ turn_left(by_byte(x ^ turn_left(by_half(x), 2)), 3)), 2);
      s[3] += sum;
      x = s[0];
      sum += turn_right(x ^ turn_right(by_byte(x ^ turn_right(by_byte(x), 1)), 3), 2) + ((x & s[1]) | (s[2] & (x | s[1])));
      for (uint32_t *to = s + 7; to != s; to--) *to = to[-1];
      s[0] = sum;
      if (i >= 48) continue;
      /* the word that is needed 16 rounds later */
      x = w[(i + 1) & 15];
      sum = *now + w[(i + 9) & 15] + (turn_left(by_byte(x ^ turn_right(by_byte(x), 3)), 1) ^ x >> 3);
      x = w[(i + 14) & 15];
      *now = sum + (turn_right(by_half(x ^ turn_right(x, 2)), 1) ^ x >> 8 >> 2);
    }
    for (uint8_t i = 8; i--;) h[i] += s[i];
  }

 public:
  typedef uint32_t State[8];

  void begin() {
    memcpy_P(h, SHA256_START, sizeof h);
    length = 0;
  }
  void put(uint8_t c) {
    ((uint8_t *)w)[((uint8_t)length & 63) ^ 3] = c; /* the lowest byte of a word comes last in the message, first in memory */
    if (!((uint8_t)++length & 63)) block();
  }
  void end() {
    uint16_t bytes = length;
    put(0x80);
    while (((uint8_t)length & 63) != 56) put(0);
    w[14] = 0;
    w[15] = (uint32_t)bytes << 3;
    block();
  }
  uint8_t at(uint8_t i) const { return ((const uint8_t *)h)[i ^ 3]; }

  /* What 64 bytes have made of it, to be gone on from. */
  void save(State &to) const { memcpy(to, h, sizeof h); }
  void resume(const State &from) {
    memcpy(h, from, sizeof h);
    length = 64;
  }
  /* The sum becomes the message, behind the 64 bytes of another state. */
  void wrap(const State &from) {
    memset(w, 0, sizeof w);
    memcpy(w, h, sizeof h);
    resume(from);
    w[8] = 0x80000000;
    w[15] = (64 + 32) * 8;
    block();
  }
};

struct Open {
  enum { BYTES = 0 };
  uint8_t signature(uint8_t) const { return 0; }
  void begin_seal() {}
  template <class Tracker, class What> void sign(Tracker &, What) {}
};

/* key: 32 bytes, which must stay where they are; begin() of the tracker reads them. BYTES of the signature are sent, 8 to 32. */
struct Hmac {
  enum { BYTES = 16 };
  const uint8_t *key;
  uint8_t tag[BYTES];
  Sha256::State inner, outer; /* the key's halves of the work are done once */
  explicit constexpr Hmac(const uint8_t *k) : key(k), tag(), inner(), outer() {}
  uint8_t signature(uint8_t i) const { return tag[i]; }

  static void digest(void *sha, uint8_t c) { static_cast<Sha256 *>(sha)->put(c); }

  SPOORWAY_ONCE void pad(Sha256::State &to, uint8_t with) {
    Sha256 sha;
    sha.begin();
    for (uint8_t i = 0; i < 64; i++) sha.put((i < 32 ? key[i] : 0) ^ with);
    sha.save(to);
  }
  void begin_seal() {
    pad(inner, 0x36);
    pad(outer, 0x5c);
  }

  template <class Tracker, class What> SPOORWAY_ONCE void sign(Tracker &tracker, What what) {
    Sha256 sha;
    sha.resume(inner);
    tracker.to(digest, &sha);
    tracker.text(tracker.device);
    tracker.put('\n');
    tracker.number(tracker.boot);
    tracker.put('\n');
    tracker.number(tracker.message);
    tracker.put('\n');
    what.target();
    tracker.put('\n');
    what.body();
    sha.end();
    sha.wrap(outer);
    for (uint8_t i = 0; i < BYTES; i++) tag[i] = sha.at(i);
  }
};

}  // namespace spoorway
#endif

/* Open: nobody proves anything. Hmac: HMAC-SHA256 with a device's key, in 104 bytes of RAM while and where it is used.

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

class Sha256 {
  uint32_t h[8], w[16];
  uint16_t length;

  static uint32_t turn(uint32_t x, uint8_t by) { return x >> by | x << (32 - by); }

  void block() {
    uint32_t s[8];
    for (uint8_t i = 0; i < 8; i++) s[i] = h[i];
    for (uint8_t i = 0; i < 64; i++) {
      uint32_t x = w[i & 15];
      if (i > 15) {
        uint32_t a = w[(i + 1) & 15], b = w[(i + 14) & 15];
        x += w[(i + 9) & 15] + (turn(a, 7) ^ turn(a, 18) ^ a >> 3) + (turn(b, 17) ^ turn(b, 19) ^ b >> 10);
        w[i & 15] = x;
      }
      uint32_t e = s[4], a = s[0];
      x += s[7] + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & s[5]) ^ (~e & s[6])) + pgm_read_dword(SHA256_K + i);
      uint32_t y = (turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]));
      for (uint8_t j = 7; j; j--) s[j] = s[j - 1];
      s[4] += x;
      s[0] = x + y;
    }
    for (uint8_t i = 0; i < 8; i++) h[i] += s[i];
  }

 public:
  void begin() {
    for (uint8_t i = 0; i < 8; i++) h[i] = pgm_read_dword(SHA256_START + i);
    length = 0;
  }
  void put(uint8_t c) {
    uint8_t i = (length >> 2) & 15;
    w[i] = w[i] << 8 | c;
    if (!(++length & 63)) block();
  }
  void end() {
    uint16_t bits = length;
    put(0x80);
    while ((length & 63) != 56) put(0);
    for (uint8_t i = 0; i < 5; i++) put(0);
    put((uint8_t)(bits >> 13));
    put((uint8_t)(bits >> 5));
    put((uint8_t)(bits << 3));
  }
  uint8_t at(uint8_t i) const { return (uint8_t)(h[i >> 2] >> (24 - 8 * (i & 3))); }
};

struct Open {
  enum { BYTES = 0 };
  uint8_t at(uint8_t) const { return 0; }
  template <class Tracker, class Target> void sign(Tracker &, Target) {}
};

/* key: 32 bytes, which must stay where they are. BYTES of the signature are sent, 8 to 32. */
struct Hmac {
  enum { BYTES = 16 };
  const uint8_t *key;
  uint8_t tag[BYTES];
  explicit constexpr Hmac(const uint8_t *k) : key(k), tag() {}
  uint8_t at(uint8_t i) const { return tag[i]; }

  static void emit(void *sha, uint8_t c) { static_cast<Sha256 *>(sha)->put(c); }

  void pad(Sha256 &sha, uint8_t with) {
    sha.begin();
    for (uint8_t i = 0; i < 64; i++) sha.put((i < 32 ? key[i] : 0) ^ with);
  }

  /* target writes itself to an Out. */
  template <class Tracker, class Target> void sign(Tracker &tracker, Target target) {
    Sha256 sha;
    Out out(emit, &sha);
    pad(sha, 0x36);
    out.text(tracker.device);
    out.put('\n');
    out.number(tracker.boot);
    out.put('\n');
    out.number(tracker.message);
    out.put('\n');
    target.target(out);
    out.put('\n');
    target.body(out);
    sha.end();
    uint8_t inner[32];
    for (uint8_t i = 0; i < 32; i++) inner[i] = sha.at(i);
    pad(sha, 0x5c);
    for (uint8_t i = 0; i < 32; i++) sha.put(inner[i]);
    sha.end();
    for (uint8_t i = 0; i < BYTES; i++) tag[i] = sha.at(i);
  }
};

}  // namespace spoorway
#endif

/* Open: nobody proves anything. Hmac: HMAC-SHA256 with a device's key, in 82 bytes of RAM and 175 of stack where it is used.

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
  uint16_t length;
  uint32_t h[8], w[16], s[16]; /* s: the eight words of a round begin four bytes before those of the one before */

  static SPOORWAY_ONCE void copy(void *to, const void *from) {
    uint8_t *t = static_cast<uint8_t *>(to);
    const uint8_t *f = static_cast<const uint8_t *>(from);
    for (uint8_t i = 32; i; i--) *t++ = *f++;
  }

#ifdef __AVR__
  /* All 64 rounds, in half the bytes that a compiler needs: words stay in registers, and are turned by one loop.

     r18 to r21 the sum, r22 to r25 a word, Y the words of the round, Z the constants. r26, r27, r16, r17: how `sigma` turns its word:
     by r26, and with the word by r27, and with the word shifted by r16 by r17. */
  SPOORWAY_ONCE void block() {
    const uint32_t *k = SHA256_K;
    __asm__ volatile(
        /* s + 8 = h, of which h lies before w and s behind it */
        "push r28\n push r29\n clr r11\n movw r28,%A[w]\n subi r28,-64-32\n sbci r29,-1\n movw r26,%A[w]\n sbiw r26,32\n ldi r22,32\n"
        "4: ld r0,X+\n st Y+,r0\n dec r22\n brne 4b\n sbiw r28,32\n rjmp 9f\n"
        /* r22 = w[r26] */
        "5: andi r26,15\n lsl r26\n lsl r26\n clr r27\n add r26,%A[w]\n adc r27,%B[w]\n"
        "ld r22,X+\n ld r23,X+\n ld r24,X+\n ld r25,X\n ret\n"
        /* turn r22 right by r26 bits */
        "7: sbrs r26,4\n rjmp 71f\n movw r0,r22\n movw r22,r24\n movw r24,r0\n clr r1\n"
        "71: sbrs r26,3\n rjmp 72f\n mov r0,r22\n mov r22,r23\n mov r23,r24\n mov r24,r25\n mov r25,r0\n"
        "72: andi r26,7\n breq 74f\n"
        "73: bst r22,0\n ror r25\n ror r24\n ror r23\n ror r22\n bld r25,7\n dec r26\n brne 73b\n"
        "74: ret\n"
        /* sigma */
        "6: movw r12,r22\n movw r14,r24\n rcall 7b\n rcall 64f\n mov r26,r27\n rcall 7b\n"
        "sbrs r16,3\n rjmp 61f\n mov r12,r13\n mov r13,r14\n mov r14,r15\n clr r15\n andi r16,7\n"
        "61: tst r16\n breq 62f\n lsr r15\n ror r14\n ror r13\n ror r12\n dec r16\n rjmp 61b\n"
        "62: rcall 64f\n mov r26,r17\n cpse r26,r1\n rcall 7b\n"
        "63: add r18,r22\n adc r19,r23\n adc r20,r24\n adc r21,r25\n ret\n"
        "64: eor r22,r12\n eor r23,r13\n eor r24,r14\n eor r25,r15\n ret\n"
        /* a round: the word of the message */
        "9: mov r26,r11\n rcall 5b\n movw r18,r22\n movw r20,r24\n"
        "mov r26,r11\n subi r26,16\n brlo 1f\n subi r26,-9\n rcall 5b\n rcall 63b\n"
        "mov r26,r11\n inc r26\n rcall 5b\n ldi r26,21\n ldi r27,18\n ldi r16,3\n clr r17\n rcall 6b\n"
        "mov r26,r11\n subi r26,-14\n rcall 5b\n ldi r26,2\n ldi r27,17\n ldi r16,10\n rcall 6b\n"
        "mov r26,r11\n rcall 5b\n st X,r21\n st -X,r20\n st -X,r19\n st -X,r18\n"
        /* the fifth word turned, the eighth, the constant, the choice by the fifth of the sixth and seventh */
        "1: ldd r22,Y+16\n ldd r23,Y+17\n ldd r24,Y+18\n ldd r25,Y+19\n ldi r26,27\n ldi r27,18\n clr r16\n ldi r17,25\n rcall 6b\n"
        "ldd r22,Y+28\n ldd r23,Y+29\n ldd r24,Y+30\n ldd r25,Y+31\n rcall 63b\n"
        "lpm r22,Z+\n lpm r23,Z+\n lpm r24,Z+\n lpm r25,Z+\n rcall 63b\n"
        "ldd r22,Y+20\n ldd r23,Y+24\n ldd r24,Y+16\n eor r22,r23\n and r22,r24\n eor r22,r23\n add r18,r22\n"
        "ldd r22,Y+21\n ldd r23,Y+25\n ldd r24,Y+17\n eor r22,r23\n and r22,r24\n eor r22,r23\n adc r19,r22\n"
        "ldd r22,Y+22\n ldd r23,Y+26\n ldd r24,Y+18\n eor r22,r23\n and r22,r24\n eor r22,r23\n adc r20,r22\n"
        "ldd r22,Y+23\n ldd r23,Y+27\n ldd r24,Y+19\n eor r22,r23\n and r22,r24\n eor r22,r23\n adc r21,r22\n"
        /* the fourth word has all that; the new first one the first turned and the majority, too */
        "ldd r22,Y+12\n ldd r23,Y+13\n ldd r24,Y+14\n ldd r25,Y+15\n"
        "add r22,r18\n adc r23,r19\n adc r24,r20\n adc r25,r21\n std Y+12,r22\n std Y+13,r23\n std Y+14,r24\n std Y+15,r25\n"
        "ld r22,Y\n ldd r23,Y+1\n ldd r24,Y+2\n ldd r25,Y+3\n ldi r26,9\n ldi r27,11\n ldi r17,2\n rcall 6b\n"
        "ldd r22,Y+0\n ldd r23,Y+4\n mov r24,r22\n and r24,r23\n or r22,r23\n ldd r23,Y+8\n and r22,r23\n or r22,r24\n add r18,r22\n"
        "ldd r22,Y+1\n ldd r23,Y+5\n mov r24,r22\n and r24,r23\n or r22,r23\n ldd r23,Y+9\n and r22,r23\n or r22,r24\n adc r19,r22\n"
        "ldd r22,Y+2\n ldd r23,Y+6\n mov r24,r22\n and r24,r23\n or r22,r23\n ldd r23,Y+10\n and r22,r23\n or r22,r24\n adc r20,r22\n"
        "ldd r22,Y+3\n ldd r23,Y+7\n mov r24,r22\n and r24,r23\n or r22,r23\n ldd r23,Y+11\n and r22,r23\n or r22,r24\n adc r21,r22\n"
        "st -Y,r21\n st -Y,r20\n st -Y,r19\n st -Y,r18\n"
        "inc r11\n mov r26,r11\n andi r26,7\n breq 8f\n rjmp 9b\n"
        /* after each eighth s + 8 = s, which leaves Y where it was at the beginning; then h += s + 8 */
        "8: movw r26,r28\n adiw r26,32\n ldi r22,32\n"
        "4: ld r0,Y+\n st X+,r0\n dec r22\n brne 4b\n sbrs r11,6\n rjmp 9b\n"
        "movw r26,%A[w]\n sbiw r26,32\n ldi r23,8\n"
        "2: clc\n ldi r22,4\n"
        "3: ld r0,X\n ld r24,Y+\n adc r0,r24\n st X+,r0\n dec r22\n brne 3b\n dec r23\n brne 2b\n"
        "pop r29\n pop r28\n"
        : "+z"(k)
        : [w] "l"(w)
        : "r11", "r12", "r13", "r14", "r15", "r16", "r17", "r18", "r19", "r20", "r21", "r22", "r23", "r24", "r25", "r26", "r27", "memory");
  }
#else
  static uint32_t turned(uint32_t x, uint8_t bits) { return x >> bits | x << (32 - bits); }
  void block() {
    const uint32_t *k = SHA256_K;
    copy(s + 8, h);
    for (uint8_t i = 0; i < 64; copy(s + 8, s))
      for (uint32_t *v = s + 8; v != s; v--, i++) {
        uint32_t &now = w[i & 15], x = w[(i + 1) & 15], y = w[(i + 14) & 15];
        if (i >= 16) now += w[(i + 9) & 15] + (turned(x, 7) ^ turned(x, 18) ^ x >> 3) + (turned(y, 17) ^ turned(y, 19) ^ y >> 10);
        x = v[4];
        uint32_t sum = now + (turned(x, 6) ^ turned(x, 11) ^ turned(x, 25)) + v[7] + *k++ + (v[6] ^ (x & (v[5] ^ v[6])));
        v[3] += sum;
        x = v[0];
        v[-1] = sum + (turned(x, 2) ^ turned(x, 13) ^ turned(x, 22)) + ((x & v[1]) | (v[2] & (x | v[1])));
      }
    for (uint8_t i = 0; i < 8; i++) h[i] += s[i];
  }
#endif

 public:
  typedef uint32_t State[8];

  /* What a key makes of it: of its 32 bytes, and of 32 of 0. */
  SPOORWAY_ONCE void begin(State &to, const uint8_t *key, uint8_t with) {
    const uint8_t *from = (const uint8_t *)SHA256_START;
    for (uint8_t i = 0; i < 32; i++) ((uint8_t *)h)[i] = pgm_read_byte(from++);
    length = 0;
    for (uint8_t i = 64; i; i--) put(i > 32 ? *key++ ^ with : with);
    copy(to, h);
  }
  SPOORWAY_ONCE void put(uint8_t c) {
    ((uint8_t *)w)[((uint8_t)length & 63) ^ 3] = c; /* the lowest byte of a word comes last in the message, first in memory */
    if (!((uint8_t)++length & 63)) block();
  }
  SPOORWAY_ONCE void end() {
    uint16_t bytes = length;
    put(0x80);
    while (((uint8_t)length & 63) != 61) put(0);
    put((uint8_t)(bytes >> 13));
    put((uint8_t)(bytes >> 5));
    put((uint8_t)(bytes << 3));
  }
  /* Bytes of the sum as they lie in its words: the fourth is the first. */
  void first(uint8_t *to, uint8_t count) const {
    const uint8_t *from = (const uint8_t *)h;
    while (count--) *to++ = *from++;
  }

  /* Goes on from there. */
  SPOORWAY_ONCE void resume(const State &from) {
    copy(h, from);
    length = 64;
  }
  /* The sum becomes the message, behind the 64 bytes of another state. */
  SPOORWAY_ONCE void wrap(const State &from) {
    end();
    copy(w, h);
    resume(from);
    length += 32;
    end();
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
  uint8_t signature(uint8_t i) const { return tag[i ^ 3]; }

  static void digest(void *sha, uint8_t c) { static_cast<Sha256 *>(sha)->put(c); }

  SPOORWAY_ONCE void begin_seal() {
    Sha256 sha;
    sha.begin(inner, key, 0x36);
    sha.begin(outer, key, 0x5c);
  }

  template <class Tracker, class What> SPOORWAY_ONCE void sign(Tracker &tracker, What what) {
    Sha256 sha;
    sha.resume(inner);
    tracker.to(digest, &sha);
    tracker.who('\n');
    tracker.put('\n');
    what.target();
    tracker.put('\n');
    what.body();
    sha.wrap(outer);
    sha.first(tag, BYTES);
  }
};

}  // namespace spoorway
#endif

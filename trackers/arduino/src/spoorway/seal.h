/* Open: nobody proves anything. Hmac: HMAC-SHA256 with a device's key, in 18 bytes of RAM beside it and 195 of stack where it is used.

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
  /* One behind the other: the block, the sum so far, and twice the words of a round, which begin four bytes before those of the one before. */
  uint32_t w[16], h[8], s[16];

#ifdef __AVR__
  /* All 64 rounds, in half the bytes that a compiler needs: what is done to words is called, and whole bytes are turned by their names.

     r18 to r21 the sum, r22 to r25 a word, r12 to r15 what it was before it was turned, r17 four times the round, Y the words of the round,
     Z the constants. */
  SPOORWAY_ONCE void block() {
    const uint32_t *k = SHA256_K;
    __asm__ volatile(
        "push r28\n push r29\n clr r17\n movw r28,%A[w]\n subi r28,-64\n sbci r29,-1\n rcall 3f\n rcall 3f\n rjmp 9f\n"
        /* the eight words at Y are copied behind themselves: first from h to s, and then from there, as after each eighth round */
        "3: movw r26,r28\n adiw r26,32\n ldi r22,32\n"
        "31: ld r0,Y+\n st X+,r0\n dec r22\n brne 31b\n ret\n"
        /* r22 = w[round + r26 / 4] */
        "5: add r26,r17\n andi r26,60\n clr r27\n add r26,%A[w]\n adc r27,%B[w]\n"
        "ld r22,X+\n ld r23,X+\n ld r24,X+\n ld r25,X\n ret\n"
        /* r12 = r22, which is turned right by r26 bits; or without the first */
        "6: movw r12,r22\n movw r14,r24\n"
        "7: bst r22,0\n ror r25\n ror r24\n ror r23\n ror r22\n bld r25,7\n dec r26\n brne 7b\n ret\n"
        "8: add r18,r22\n adc r19,r23\n adc r20,r24\n adc r21,r25\n ret\n"
        /* a round: the word of the message, from the 17th on with three others */
        "9: clr r18\n clr r19\n movw r20,r18\n cpi r17,64\n brlo 1f\n ldi r26,36\n rcall 5b\n rcall 8b\n"
        /* y = the second turned by 3; the second turned by 8, and y by 16: both by -1; and y without the 3 bits from below */
        "ldi r26,4\n rcall 5b\n ldi r26,3\n rcall 6b\n eor r13,r24\n eor r14,r25\n eor r15,r22\n eor r12,r23\n"
        "lsl r13\n rol r14\n rol r15\n rol r12\n adc r13,r1\n"
        "andi r25,31\n eor r22,r13\n eor r23,r14\n eor r24,r15\n eor r25,r12\n rcall 8b\n"
        /* y = the fifteenth turned by 2; that one and y by 17; and y without the 2 bits from below, shifted by 8 */
        "ldi r26,56\n rcall 5b\n ldi r26,2\n rcall 6b\n eor r12,r22\n eor r13,r23\n eor r14,r24\n eor r15,r25\n"
        "bst r12,0\n ror r15\n ror r14\n ror r13\n ror r12\n bld r15,7\n"
        "andi r25,63\n eor r14,r23\n eor r15,r24\n eor r12,r25\n add r18,r14\n adc r19,r15\n adc r20,r12\n adc r21,r13\n"
        "1: clr r26\n rcall 5b\n rcall 8b\n st X,r21\n st -X,r20\n st -X,r19\n st -X,r18\n"
        /* the fifth word turned by 6 = 3 + 2 + 1, 11 = 8 + 2 + 1 and 25 = 24 + 1; the eighth; the constant */
        "ldd r22,Y+16\n ldd r23,Y+17\n ldd r24,Y+18\n ldd r25,Y+19\n ldi r26,3\n rcall 6b\n"
        "eor r22,r13\n eor r23,r14\n eor r24,r15\n eor r25,r12\n ldi r26,2\n rcall 7b\n"
        "eor r22,r15\n eor r23,r12\n eor r24,r13\n eor r25,r14\n ldi r26,1\n rcall 7b\n rcall 8b\n"
        "ldd r22,Y+28\n ldd r23,Y+29\n ldd r24,Y+30\n ldd r25,Y+31\n rcall 8b\n"
        "lpm r22,Z+\n lpm r23,Z+\n lpm r24,Z+\n lpm r25,Z+\n rcall 8b\n"
        /* the choice by the fifth of the sixth and seventh */
        "ldd r22,Y+20\n ldd r23,Y+24\n eor r22,r23\n and r22,r12\n eor r22,r23\n add r18,r22\n"
        "ldd r22,Y+21\n ldd r23,Y+25\n eor r22,r23\n and r22,r13\n eor r22,r23\n adc r19,r22\n"
        "ldd r22,Y+22\n ldd r23,Y+26\n eor r22,r23\n and r22,r14\n eor r22,r23\n adc r20,r22\n"
        "ldd r22,Y+23\n ldd r23,Y+27\n eor r22,r23\n and r22,r15\n eor r22,r23\n adc r21,r22\n"
        /* the fourth word has all that; the new first one, too, */
        "ldd r22,Y+12\n ldd r23,Y+13\n ldd r24,Y+14\n ldd r25,Y+15\n"
        "add r22,r18\n adc r23,r19\n adc r24,r20\n adc r25,r21\n std Y+12,r22\n std Y+13,r23\n std Y+14,r24\n std Y+15,r25\n"
        /* with the first turned by 22 = 16 + 1 + 3 + 2, 13 = 8 + 3 + 2 and 2, of which we take it turned by 16, */
        "ldd r22,Y+2\n ldd r23,Y+3\n ld r24,Y\n ldd r25,Y+1\n ldi r26,1\n rcall 6b\n"
        "eor r22,r15\n eor r23,r12\n eor r24,r13\n eor r25,r14\n ldi r26,3\n rcall 7b\n"
        "eor r22,r14\n eor r23,r15\n eor r24,r12\n eor r25,r13\n ldi r26,2\n rcall 7b\n rcall 8b\n"
        /* and the majority: by whether the first and third differ the second or third */
        "ldd r22,Y+4\n ldd r23,Y+8\n eor r14,r23\n eor r22,r23\n and r22,r14\n eor r22,r23\n add r18,r22\n"
        "ldd r22,Y+5\n ldd r23,Y+9\n eor r15,r23\n eor r22,r23\n and r22,r15\n eor r22,r23\n adc r19,r22\n"
        "ldd r22,Y+6\n ldd r23,Y+10\n eor r12,r23\n eor r22,r23\n and r22,r12\n eor r22,r23\n adc r20,r22\n"
        "ldd r22,Y+7\n ldd r23,Y+11\n eor r13,r23\n eor r22,r23\n and r22,r13\n eor r22,r23\n adc r21,r22\n"
        "st -Y,r21\n st -Y,r20\n st -Y,r19\n st -Y,r18\n"
        "subi r17,-4\n breq 2f\n mov r26,r17\n andi r26,31\n brne 1f\n rcall 3b\n1: rjmp 9b\n"
        /* h, which lies before them, += the words */
        "2: movw r26,r28\n sbiw r26,32\n ldi r23,8\n"
        "21: clc\n ldi r22,4\n"
        "22: ld r0,X\n ld r24,Y+\n adc r0,r24\n st X+,r0\n dec r22\n brne 22b\n dec r23\n brne 21b\n"
        "pop r29\n pop r28\n"
        : "+z"(k)
        : [w] "l"(w)
        : "r12", "r13", "r14", "r15", "r17", "r18", "r19", "r20", "r21", "r22", "r23", "r24", "r25", "r26", "r27", "memory");
  }
#else
  static uint32_t turned(uint32_t x, uint8_t bits) { return x >> bits | x << (32 - bits); }
  void block() {
    const uint32_t *k = SHA256_K;
    memcpy(s, h, sizeof h);
    for (uint8_t i = 0; i < 64;) {
      memcpy(s + 8, s, sizeof h);
      for (uint32_t *v = s + 8; v != s; v--, i++) {
        uint32_t &now = w[i & 15], x = w[(i + 1) & 15], y = w[(i + 14) & 15];
        if (i >= 16) now += w[(i + 9) & 15] + (turned(x, 7) ^ turned(x, 18) ^ x >> 3) + (turned(y, 17) ^ turned(y, 19) ^ y >> 10);
        x = v[4];
        uint32_t sum = now + (turned(x, 6) ^ turned(x, 11) ^ turned(x, 25)) + v[7] + *k++ + (v[6] ^ (x & (v[5] ^ v[6])));
        v[3] += sum;
        x = v[0];
        v[-1] = sum + (turned(x, 2) ^ turned(x, 13) ^ turned(x, 22)) + ((x & v[1]) | (v[2] & (x | v[1])));
      }
    }
    for (uint8_t i = 0; i < 8; i++) h[i] += s[i];
  }
#endif

 public:
  static SPOORWAY_ONCE void put(void *self, uint8_t c) {
    Sha256 &sha = *static_cast<Sha256 *>(self);
    ((uint8_t *)sha.w)[((uint8_t)sha.length & 63) ^ 3] = c; /* the lowest byte of a word comes last in the message, first in memory */
    if (!((uint8_t)++sha.length & 63)) sha.block();
  }
  /* Bytes, of which there are 32 and then zeros, each with that mask. */
  SPOORWAY_ONCE void feed(const uint8_t *from, uint8_t count, uint8_t mask) {
    for (uint8_t i = 0; i != count; i++) put(this, i < 32 ? *from++ ^ mask : mask);
  }
  /* A new sum, of what a key of 32 bytes begins with. */
  SPOORWAY_ONCE void begin(const uint8_t *key, uint8_t mask) {
    const uint8_t *from = (const uint8_t *)SHA256_START;
    for (uint8_t i = 0; i < 32; i++) ((uint8_t *)h)[i] = pgm_read_byte(from++);
    length = 0;
    feed(key, 64, mask);
  }
  /* The first bytes of the sum. */
  SPOORWAY_ONCE void end(uint8_t *to, uint8_t count) {
    uint16_t bytes = length;
    uint8_t c = 0x80;
    do {
      put(this, c);
      c = 0;
    } while (((uint8_t)length & 63) != 56); /* the 0x80 is never in the last eight */
    w[14] = 0;
    w[15] = (uint32_t)bytes << 3;
    block();
    for (uint8_t i = 0; i != count; i++) *to++ = ((uint8_t *)h)[i ^ 3];
  }
};

struct Open {
  enum { BYTES = 0 };
  uint8_t signature(uint8_t) const { return 0; }
  template <class What, class Tracker> void sign(Tracker &) {}
};

/* key: 32 bytes, which must stay where they are. BYTES of the signature are sent, 8 to 32. */
struct Hmac {
  enum { BYTES = 16 };
  const uint8_t *key;
  uint8_t tag[BYTES];
  explicit constexpr Hmac(const uint8_t *k) : key(k), tag() {}
  uint8_t signature(uint8_t i) const { return tag[i]; }

  template <class What, class Tracker> SPOORWAY_ONCE void sign(Tracker &tracker) {
    Sha256 sha;
    uint8_t inner[32];
    sha.begin(key, 0x36);
    tracker.to(Sha256::put, &sha);
    tracker.who('\n');
    tracker.put('\n');
    What::target(tracker);
    tracker.put('\n');
    What::body(tracker);
    sha.end(inner, sizeof inner);
    sha.begin(key, 0x5c);
    sha.feed(inner, sizeof inner, 0);
    sha.end(tag, BYTES);
  }
};

}  // namespace spoorway
#endif

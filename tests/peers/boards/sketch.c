/* A sensor for ATmega328P and ATmega2560, written from docs/devices.md alone ("Serial lines", "Provisioning"): it shares no code with any tracker.
 *
 * Says one line of its own at every start. Without an identity it waits for one. With one it says hello, sends one signed event, again every
 * second until it is on disk, and one more each time a byte `+` comes. Its boots are counted at byte 192 of the EEPROM.
 */
#include <avr/eeprom.h>
#include <avr/interrupt.h>
#include <avr/io.h>
#include <avr/pgmspace.h>
#include <avr/wdt.h>
#include <string.h>
#include <util/crc16.h>
#include <util/delay.h>

enum { RESERVED = 192, LINE = 64 };

#ifdef __AVR_ATmega2560__
#define RECEIVED USART0_RX_vect
#else
#define RECEIVED USART_RX_vect
#endif

static volatile uint8_t ring[128], head, tail;
ISR(RECEIVED) { ring[head++ & 127] = UDR0; }

/* SHA-256, FIPS 180-4, one block at a time. */
static const uint32_t K[64] PROGMEM = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
    0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
    0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
    0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
    0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
    0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
static uint32_t state[8], length;
static uint8_t waiting[64];

static uint32_t rotated(uint32_t x, uint8_t n) { return x >> n | x << (32 - n); }

static void compress(void) {
  uint32_t w[16], v[8];
  for (uint8_t i = 0; i < 16; i++)
    w[i] = (uint32_t)waiting[4 * i] << 24 | (uint32_t)waiting[4 * i + 1] << 16 | (uint32_t)waiting[4 * i + 2] << 8 | waiting[4 * i + 3];
  memcpy(v, state, sizeof v);
  for (uint8_t i = 0; i < 64; i++) {
    if (i >= 16) {
      uint32_t a = w[(i + 1) & 15], b = w[(i + 14) & 15];
      w[i & 15] += (rotated(a, 7) ^ rotated(a, 18) ^ a >> 3) + w[(i + 9) & 15] + (rotated(b, 17) ^ rotated(b, 19) ^ b >> 10);
    }
    uint32_t one = v[7] + (rotated(v[4], 6) ^ rotated(v[4], 11) ^ rotated(v[4], 25)) + ((v[4] & v[5]) ^ (~v[4] & v[6])) + pgm_read_dword(&K[i]) + w[i & 15];
    uint32_t two = (rotated(v[0], 2) ^ rotated(v[0], 13) ^ rotated(v[0], 22)) + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
    memmove(v + 1, v, 28);
    v[4] += one;
    v[0] = one + two;
  }
  for (uint8_t i = 0; i < 8; i++) state[i] += v[i];
}
static void begin(void) {
  static const uint32_t start[8] PROGMEM = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  memcpy_P(state, start, 32);
  length = 0;
}
static void digest(uint8_t byte) {
  waiting[length++ & 63] = byte;
  if (!(length & 63)) compress();
}
static void finish(uint8_t out[32]) {
  uint32_t bits = length * 8;
  digest(0x80);
  while ((length & 63) != 56) digest(0);
  for (uint8_t i = 0; i < 8; i++) digest(i < 4 ? 0 : (uint8_t)(bits >> (8 * (7 - i))));
  for (uint8_t i = 0; i < 32; i++) out[i] = (uint8_t)(state[i / 4] >> (8 * (3 - i % 4)));
}

/* The identity block. */
static uint8_t stored(uint16_t at) { return eeprom_read_byte((const uint8_t *)at); }
static uint8_t whole(void) {
  if (stored(0) != 'S' || stored(1) != 'W' || stored(2) != 1 || stored(3) > RESERVED - 6) return 0;
  uint16_t crc = 0xffff;
  for (uint8_t i = 0; i < stored(3) + 6; i++) crc = _crc_xmodem_update(crc, stored(i));
  return crc == 0;
}
/* Where a field's value begins, its length there before it; 0 = it has none. */
static uint8_t field(uint8_t tag) {
  for (uint8_t at = 4; at < 4 + stored(3); at += 2 + stored(at + 1))
    if (stored(at) == tag) return at + 2;
  return 0;
}

/* Lines: what is said runs through the sum. */
static uint16_t sum;
static void out(char c) {
  while (!(UCSR0A & 1 << UDRE0)) {}
  UDR0 = (uint8_t)c;
  sum = _crc_xmodem_update(sum, (uint8_t)c);
}
static void text(const char *s) {
  while (*s) out(*s++);
}
static void hex(uint8_t byte) {
  for (uint8_t i = 0; i < 2; i++, byte <<= 4) out("0123456789abcdef"[byte >> 4]);
}
static char *decimal(uint32_t n, char *end) {
  for (*--end = (char)('0' + n % 10); n /= 10;) *--end = (char)('0' + n % 10);
  return end;
}
static void close_line(void) {
  uint16_t now = sum;
  out('*'), hex((uint8_t)(now >> 8)), hex((uint8_t)now), out('\n');
}
static void number(uint32_t n) {
  char digits[11] = {0};
  text(decimal(n, digits + 10));
}

static uint32_t boot;

static void signed_part(char kind, uint32_t sequence, const char *body) {
  char digits[11] = {0};
  for (uint8_t i = 0, at = field(1); i < stored(at - 1); i++) digest(stored(at + i));
  digest('\n');
  for (const char *p = decimal(boot, digits + 10); *p; p++) digest((uint8_t)*p);
  digest('\n');
  for (const char *p = decimal(sequence, digits + 10); *p; p++) digest((uint8_t)*p);
  digest('\n'), digest((uint8_t)kind), digest('\n');
  while (*body) digest((uint8_t)*body++);
}
static void say(char kind, uint32_t sequence, const char *body) {
  uint8_t key = field(2), mac[32];
  begin();
  for (uint8_t i = 0; i < 64; i++) digest(0x36 ^ (i < 32 ? stored(key + i) : 0));
  signed_part(kind, sequence, body);
  finish(mac);
  begin();
  for (uint8_t i = 0; i < 64; i++) digest(0x5c ^ (i < 32 ? stored(key + i) : 0));
  for (uint8_t i = 0; i < 32; i++) digest(mac[i]);
  finish(mac);
  out('@');
  sum = 0xffff;
  out(kind), out(',');
  for (uint8_t i = 0, at = field(1); i < stored(at - 1); i++) out((char)stored(at + i));
  out(','), number(boot), out(','), number(sequence), out(',');
  for (uint8_t i = 0; i < 8; i++) hex(mac[i]);
  out(':'), text(body), close_line();
}

static uint8_t nibble(char c) { return (uint8_t)(c <= '9' ? c - '0' : c - 'a' + 10); }
static uint16_t written(const char *at) { return (uint16_t)(nibble(at[0]) << 12 | nibble(at[1]) << 8 | nibble(at[2]) << 4 | nibble(at[3])); }

static void told(const char *line, uint8_t n) {
  uint8_t at = 3, bytes = 0;
  uint16_t offset = 0, read = 0xffff;
  while (line[at] != ',' && at < n) offset = offset * 10 + (uint8_t)(line[at++] - '0');
  at++;
  bytes = (uint8_t)((n - 5 - at) / 2);
  uint8_t fits = offset + bytes <= RESERVED;
  if (fits)
    for (uint8_t i = 0; i < bytes; i++) eeprom_update_byte((uint8_t *)(offset + i), (uint8_t)(nibble(line[at + 2 * i]) << 4 | nibble(line[at + 2 * i + 1])));
  for (uint8_t i = 0; fits && i < bytes; i++) read = _crc_xmodem_update(read, stored(offset + i));
  out('@');
  sum = 0xffff;
  text("p,"), number(offset), out(',');
  if (bytes && fits) hex((uint8_t)(read >> 8)), hex((uint8_t)read);
  else if (!bytes && whole()) hex(stored(4 + stored(3))), hex(stored(5 + stored(3)));
  close_line();
}

int main(void) {
  MCUSR = 0;
  wdt_disable();
  UCSR0A = 1 << U2X0;
  UBRR0 = 16; /* 115200 baud at 16 MHz */
  UCSR0B = 1 << RXEN0 | 1 << TXEN0 | 1 << RXCIE0;
  sei();
  uint8_t known = whole(), n = 0, more = 0;
  boot = eeprom_read_dword((const uint32_t *)RESERVED) + 1;
  if (!boot) boot = 1;
  eeprom_update_dword((uint32_t *)RESERVED, boot);
  text("sketch " SKETCH " boot "), number(boot), text("\r\n");
  if (known) say('h', 1, "");
  static char line[LINE];
  uint32_t sequence = 2, taken = 1;
  for (uint32_t ticks = 0;; ticks++) {
    if (known && sequence > taken && ticks % 10000 == 1000) say('q', sequence, "e=se&se_ca=board&se_ac=on&p=iot&tv=sketch-1&aid=bench");
    if (more && sequence == taken) more--, sequence++;
    if (head == tail) {
      _delay_us(100);
      continue;
    }
    char c = (char)ring[tail++ & 127];
    if (c == '+') more++;
    if (c == '!' || n >= LINE) n = 0;
    if (c != '\n') {
      line[n++] = c;
      continue;
    }
    uint16_t crc = 0xffff;
    for (uint8_t i = 1; n > 6 && i < n - 5; i++) crc = _crc_xmodem_update(crc, (uint8_t)line[i]);
    if (n > 6 && line[0] == '!' && line[n - 5] == '*' && crc == written(line + n - 4)) {
      if (line[1] == 'p') told(line, n);
      else if (line[1] == 'a') taken = sequence; /* one message is on its way at a time */
    }
    n = 0;
  }
}

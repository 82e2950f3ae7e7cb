/* A device on a serial port, written from docs/devices.md alone: it shares no code with what it talks to.
 *
 *   serial_device PORT NAME BOOT FIRST_SEQUENCE TIMEOUT_MS [KEY]
 *
 * Standard input: messages, one a line, "KIND BODY". Each is sent with the next number and sent again, byte for byte, until it is
 * answered; only then comes the next. Standard output: "a BOOT SEQUENCE", "n BOOT SEQUENCE REASON", "t MS", "r MS". KEY: 64 hex
 * digits. Ends when all are answered; exit code 0.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

/* SHA-256, FIPS 180-4 */
static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
    0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
    0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
    0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
    0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
    0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t rotated(uint32_t x, int n) { return x >> n | x << (32 - n); }

static void block(uint32_t h[8], const uint8_t *p) {
  uint32_t w[64], v[8];
  for (int i = 0; i < 16; i++) w[i] = (uint32_t)p[4 * i] << 24 | p[4 * i + 1] << 16 | p[4 * i + 2] << 8 | p[4 * i + 3];
  for (int i = 16; i < 64; i++) {
    uint32_t a = rotated(w[i - 15], 7) ^ rotated(w[i - 15], 18) ^ w[i - 15] >> 3;
    uint32_t b = rotated(w[i - 2], 17) ^ rotated(w[i - 2], 19) ^ w[i - 2] >> 10;
    w[i] = w[i - 16] + a + w[i - 7] + b;
  }
  memcpy(v, h, sizeof v);
  for (int i = 0; i < 64; i++) {
    uint32_t s1 = rotated(v[4], 6) ^ rotated(v[4], 11) ^ rotated(v[4], 25);
    uint32_t t1 = v[7] + s1 + ((v[4] & v[5]) ^ (~v[4] & v[6])) + K[i] + w[i];
    uint32_t s0 = rotated(v[0], 2) ^ rotated(v[0], 13) ^ rotated(v[0], 22);
    uint32_t t2 = s0 + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
    memmove(v + 1, v, 7 * sizeof *v);
    v[4] += t1;
    v[0] = t1 + t2;
  }
  for (int i = 0; i < 8; i++) h[i] += v[i];
}

static void sha256(const uint8_t *data, size_t n, uint8_t out[32]) {
  uint32_t h[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  uint8_t last[128] = {0};
  size_t whole = n / 64 * 64, rest = n - whole, size = rest < 56 ? 64 : 128;
  for (size_t i = 0; i < whole; i += 64) block(h, data + i);
  memcpy(last, data + whole, rest);
  last[rest] = 0x80;
  for (int i = 0; i < 8; i++) last[size - 1 - i] = (uint8_t)((uint64_t)n * 8 >> (8 * i));
  for (size_t i = 0; i < size; i += 64) block(h, last + i);
  for (int i = 0; i < 32; i++) out[i] = (uint8_t)(h[i / 4] >> (24 - 8 * (i % 4)));
}

static void hmac(const uint8_t key[32], const char *text, size_t n, uint8_t out[32]) {
  static uint8_t inner[64 + 8192], outer[64 + 32];
  for (int i = 0; i < 64; i++) {
    uint8_t k = i < 32 ? key[i] : 0;
    inner[i] = k ^ 0x36;
    outer[i] = k ^ 0x5c;
  }
  memcpy(inner + 64, text, n);
  sha256(inner, 64 + n, outer + 64);
  sha256(outer, sizeof outer, out);
}

static unsigned crc16(const char *data, size_t n) {
  unsigned crc = 0xFFFF;
  while (n--) {
    crc ^= (unsigned)(uint8_t)*data++ << 8;
    for (int bit = 0; bit < 8; bit++) crc = (crc & 0x8000 ? crc << 1 ^ 0x1021 : crc << 1) & 0xFFFF;
  }
  return crc;
}

static long long now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

static int port = -1;
static const char *path;

static void reopen(void) { /* the cable is in when it is in */
  if (port >= 0) close(port);
  while ((port = open(path, O_RDWR | O_NOCTTY | O_NONBLOCK)) < 0) usleep(20000);
  struct termios raw;
  if (tcgetattr(port, &raw) == 0) {
    cfmakeraw(&raw);
    raw.c_cc[VMIN] = 1;
    tcsetattr(port, TCSANOW, &raw);
  }
}

static void say(const char *line, size_t n) {
  while (n) {
    ssize_t sent = write(port, line, n);
    if (sent > 0) {
      line += sent;
      n -= (size_t)sent;
    } else if (errno == EAGAIN) {
      struct pollfd p = {port, POLLOUT, 0};
      if (poll(&p, 1, 200) == 0) return; /* nobody takes it: the timeout will say it again */
    } else {
      reopen();
      return;
    }
  }
}

/* The next line from the gateway within the time, its sum removed; 0 = there was none. */
static int hear(char *line, size_t room, long long until) {
  static char got[512];
  static size_t have;
  for (;;) {
    char *end = memchr(got, '\n', have);
    if (end) {
      size_t n = (size_t)(end - got), used = n + 1;
      int good = 0;
      if (n && got[n - 1] == '\r') n--;
      if (n > 6 && n < room && got[0] == '!' && got[n - 5] == '*') {
        char sum[5] = {got[n - 4], got[n - 3], got[n - 2], got[n - 1], 0};
        good = strtoul(sum, NULL, 16) == crc16(got + 1, n - 6);
        memcpy(line, got, n - 5);
        line[n - 5] = 0;
      }
      memmove(got, got + used, have - used);
      have -= used;
      if (good) return 1;
      continue;
    }
    if (have == sizeof got) have = 0;
    long long left = until - now_ms();
    if (left <= 0) return 0;
    struct pollfd p = {port, POLLIN, 0};
    if (poll(&p, 1, (int)left) <= 0) continue;
    ssize_t n = read(port, got + have, sizeof got - have);
    if (n > 0)
      have += (size_t)n;
    else if (n == 0 || errno != EAGAIN)
      reopen();
  }
}

int main(int argc, char **argv) {
  if (argc < 6) return 2;
  path = argv[1];
  const char *name = argv[2];
  unsigned long boot = strtoul(argv[3], NULL, 10), sequence = strtoul(argv[4], NULL, 10);
  long long timeout = atoll(argv[5]);
  uint8_t key[32];
  for (int i = 0; argc > 6 && i < 32; i++) sscanf(argv[6] + 2 * i, "%2hhx", &key[i]);
  static char message[8192], line[9000], text[9000], answer[512];
  setvbuf(stdout, NULL, _IOLBF, 0);
  reopen();
  for (; fgets(message, sizeof message, stdin); sequence++) {
    message[strcspn(message, "\n")] = 0;
    char kind = message[0];
    const char *body = message + 2;
    int n = sprintf(line, "@%c,%s,%lu,%lu", kind, name, boot, sequence);
    if (argc > 6) {
      uint8_t code[32];
      int m = sprintf(text, "%s\n%lu\n%lu\n%c\n%s", name, boot, sequence, kind, body);
      hmac(key, text, (size_t)m, code);
      line[n++] = ',';
      for (int i = 0; i < 16; i++) n += sprintf(line + n, "%02x", code[i]);
    }
    n += sprintf(line + n, ":%s", body);
    n += sprintf(line + n, "*%04x\n", crc16(line + 1, (size_t)n - 1));
    for (int answered = 0; !answered;) {
      say(line, (size_t)n);
      long long until = now_ms() + timeout;
      while (hear(answer, sizeof answer, until)) {
        unsigned long b, s;
        char reason[32];
        if (sscanf(answer, "!a,%lu,%lu", &b, &s) == 2 && b == boot && s == sequence) {
          printf("a %lu %lu\n", b, s);
          answered = 1;
        } else if (sscanf(answer, "!n,%lu,%lu,%31s", &b, &s, reason) == 3 && b == boot && s == sequence) {
          if (strcmp(reason, "crc") == 0 || strcmp(reason, "line") == 0) break;
          printf("n %lu %lu %s\n", b, s, reason);
          if (strcmp(reason, "busy") == 0) {
            usleep(50000);
            break;
          }
          answered = 1;
        } else if (strncmp(answer, "!n,,,", 5) == 0) {
          break;
        } else if (answer[1] == 't' || answer[1] == 'r') {
          printf("%c %s\n", answer[1], answer + 3);
          if (kind == 'h') answered = answer[1] == 't';
        }
        if (answered) break;
      }
    }
  }
  return 0;
}

#ifndef SPOORWAY_COMPACT_H
#define SPOORWAY_COMPACT_H
/* Writes compact frames, version 1, into a buffer of the caller's. C99 and C++; no heap, no division, nothing of 64 bits. */
#include <stdint.h>

enum { SP_NAMED = 1, SP_SEALED = 2, SP_EARLIER = 4, SP_BATCH = 8 };
#define SP_ABSENT INT32_MIN /* the value of a sensor that did not answer */

/* The caller sets bytes and size: room for them, 255 at most. at: how many are written. full: something did not fit. */
typedef struct {
  uint8_t *bytes;
  uint8_t size, at, full;
  uint32_t mark;
} sp_frame;

static void sp_byte(sp_frame *f, uint8_t byte) {
  if (f->at < f->size) f->bytes[f->at++] = byte;
  else f->full = 1;
}

static void sp_number(sp_frame *f, uint32_t n) {
  for (; n > 0x7F; n >>= 7) sp_byte(f, (uint8_t)(n | 0x80));
  sp_byte(f, (uint8_t)n);
}

/* SP_ABSENT becomes 0 without being asked for: the sum wraps around. */
static void sp_value(sp_frame *f, int32_t value) {
  sp_number(f, ((uint32_t)value << 1 ^ (value < 0 ? UINT32_MAX : 0)) + 1);
}

/* length bytes of text, or of anything; text = 0: absent. */
static inline void sp_text(sp_frame *f, const void *text, uint8_t length) {
  const uint8_t *from = (const uint8_t *)text;
  sp_number(f, from ? (uint32_t)length + 1 : 0);
  while (from && length--) sp_byte(f, *from++);
}

/* flags: of the enum; without SP_BATCH the frame has one reading, made as it is sent. device: with SP_NAMED only.
   sequence: of the first event. mark: uptime in milliseconds now, as the frame is sent. */
static void sp_begin(sp_frame *f, uint8_t flags, const char *device, uint32_t number, uint32_t boot, uint32_t sequence,
                     uint32_t mark) {
  uint8_t i;
  f->at = f->full = 0;
  f->mark = mark;
  sp_byte(f, 0xC0 | flags);
  if (flags & SP_BATCH) {
    sp_byte(f, 0); /* its length: see sp_end */
    sp_byte(f, 0); /* its readings: see sp_added */
  }
  if (flags & SP_NAMED) {
    for (i = 0; device[i];) i++;
    sp_byte(f, i);
    while (*device) sp_byte(f, (uint8_t)*device++);
  }
  sp_number(f, number);
  sp_number(f, boot);
  sp_number(f, sequence);
  for (i = 0; i < 4; i++, mark >>= 8) sp_byte(f, (uint8_t)mark);
}

/* Begins a reading; what it returns is for sp_added. */
static uint8_t sp_reading(sp_frame *f, uint32_t uptime) {
  uint8_t before = f->at;
  if (f->bytes[0] & SP_BATCH) sp_number(f, f->mark - uptime);
  return before;
}

/* 1, or 0 when it did not fit, with room for the check behind it: then it was not added. Send the frame and begin another. */
static uint8_t sp_added(sp_frame *f, uint8_t before) {
  if (f->full || f->size - f->at < 4) {
    f->at = before;
    f->full = 0;
    return 0;
  }
  if (f->bytes[0] & SP_BATCH) f->bytes[2]++;
  return 1;
}

/* How many bytes to send. Of a sealed frame: how many the seal covers; its four bytes are appended by who has the key. */
static uint8_t sp_end(sp_frame *f) {
  uint8_t sealed = f->bytes[0] & SP_SEALED, i, bit;
  uint16_t crc = 0xFFFF;
  if (f->bytes[0] & SP_BATCH) f->bytes[1] = (uint8_t)(f->at + (sealed ? 2 : 0));
  if (sealed) return f->at;
  for (i = 0; i < f->at; i++) {
    crc ^= (uint16_t)((uint16_t)f->bytes[i] << 8);
    for (bit = 8; bit; bit--) crc = (uint16_t)(crc & 0x8000 ? crc << 1 ^ 0x1021 : crc << 1);
  }
  sp_byte(f, (uint8_t)(crc >> 8));
  sp_byte(f, (uint8_t)crc);
  return f->at;
}
#endif

/* The words all parts share: what a call answers, what a template is, how bytes of a record are read. No state. */
#ifndef SPOORWAY_WORDS_H
#define SPOORWAY_WORDS_H

/* A function that is called from several places and shall be in flash once. */
#define SPOORWAY_ONCE __attribute__((noinline))
/* The same, and it is told where its object is, although that is always the same: an AVR's way to an address takes more than to an offset. */
#ifdef __AVR__
#define SPOORWAY_APART __attribute__((noinline, noclone))
#else
#define SPOORWAY_APART SPOORWAY_ONCE
#endif

namespace spoorway {

/* What a call answers beside a number greater than 0, which is the sequence of the event it took. */
enum Result {
  FULL = -1,      /* no room: counted in dropped_full */
  LARGE = -2,     /* longer than the store's longest record: counted in dropped_large */
  MISSING = -3,   /* a text that must be there is not */
  NAME = -4,      /* not a device name */
  PLATFORM = -5,  /* a platform that the protocol does not know */
  STORAGE = -6,   /* the cells do not keep what is written */
  CLOSED = -7,    /* before begin() */
  OPTED_OUT = -8, /* after opt_out() */
};

/* A value that was not measured: no key in the data, one byte in a frame. */
struct Absent {};

/* Text that is JSON, a number or a name already, and is written as it is. */
struct Raw {
  const char *text;
  explicit Raw(const char *t) : text(t) {}
};

/* A float as the whole number that a template's field of so many digits takes: fixed(21.57, 2) is 2157. */
inline int32_t fixed(float value, uint8_t digits) {
  while (digits--) value *= 10;
  return (int32_t)(value < 0 ? value - 0.5f : value + 0.5f);
}

/* A template says what an event is, in one text in flash:

     "8 iglu:com.acme/tank/jsonschema/1-0-0 level_mm.0 air.2+2000 wet? state=open|shut note$ more%"

   NUMBER  what compact frames call it, id * 8 + version - 1; 0 or left away: it has no compact form
   SCHEMA  begins with "iglu:"; or the two or three letters of an event of the protocol ("se"), whose fields are parameters; or "*":
           schema and data are the first two values of each event
   FIELD   a name, and .DIGITS[+OFFSET|-OFFSET] a number with so many decimal digits, ? a boolean, =A|B one of these, $ a text,
           % JSON that is written as it is. An offset is at scale: pressure_hpa.1+10000 has 1000.0 hPa */
typedef const char *Template;

/* Events every board may need, ready for the table of templates. */
static const char STRUCTURED[] PROGMEM = "se se_ca$ se_ac$ se_la$ se_pr$ se_va%";
static const char SELF_DESCRIBING[] PROGMEM = "* schema$ data%";
static const char SCREEN_VIEW[] PROGMEM =
    "iglu:com.snowplowanalytics.mobile/screen_view/jsonschema/1-0-0"
    " name$ id$ type$ previousName$ previousId$ previousType$ transitionType$";
static const char PAGE_VIEW[] PROGMEM = "pv url$ page$ refr$";
static const char PAGE_PING[] PROGMEM = "pp url$ page$ refr$ pp_mix% pp_max% pp_miy% pp_may%";
static const char TIMING[] PROGMEM = "iglu:com.snowplowanalytics.snowplow/timing/jsonschema/1-0-0 category$ variable$ timing.0 label$";
static const char ENVIRONMENT[] PROGMEM =
    "8 iglu:io.spoorway/environment_reading/jsonschema/1-0-0 temperature_celsius.2 humidity_percent.1 pressure_hpa.1+10000";
static const char BATTERY[] PROGMEM =
    "24 iglu:io.spoorway/battery_reading/jsonschema/1-0-0 voltage_mv.0+3700 charge_percent.0 state=discharging|charging|full";
static const char QUEUE_HEALTH[] PROGMEM =
    "16 iglu:io.spoorway/queue_health/jsonschema/1-0-0 queued.0 sent.0 resent.0 dropped_full.0 dropped_old.0 dropped_large.0"
    " storage_errors.0 longest_outage_ms.0 queued_bytes.0";

/* What may follow the fields in a record. */
enum Extra { ENTITIES = 1, TRUE_TIME = 2, EVENT_ID = 3 };

/* CRC-16, polynomial 0x1021, bit by bit: a table or a shortcut is faster, and larger. */
inline uint16_t crc16(uint16_t crc, uint8_t c) {
  crc ^= (uint16_t)c << 8;
  for (uint8_t i = 8; i--;) crc = crc & 0x8000 ? (uint16_t)(crc << 1) ^ 0x1021 : crc << 1;
  return crc;
}

/* n * 10 + digit, without the multiplication that AVRs have to link. */
SPOORWAY_ONCE inline uint32_t ten_times(uint32_t n, uint8_t digit) {
  uint32_t sum = digit;
  for (uint8_t i = 10; i--;) {
    sum += n;
    __asm__("" : "+r"(sum)); /* or the compiler makes it a multiplication */
  }
  return sum;
}

/* What is counted, is counted here: where it happens it would take three times as much. */
SPOORWAY_ONCE inline void one_more(uint16_t &n) { n++; }
SPOORWAY_ONCE inline uint32_t one_more(uint32_t &n) { return ++n; }

/* A number of a record: seven bits in a byte, the lowest first; a set high bit says that another byte follows. */
template <class Source> uint32_t read_number(Source &source) {
  uint8_t c = source.next();
  if (c < 0x80) return c;
  return (c & 0x7F) | read_number(source) << 7;
}

}  // namespace spoorway
#endif

/* Identity: who this board is, from the block that `spoorway flash` leaves at the start of its EEPROM; docs/devices.md, "Provisioning".

   Not part of Spoorway.h: a sketch that knows its own name needs none of it. begin() is for setup(): it says a line, waits a moment for
   the tool, answers it as long as it asks, and reads the block. Cells: as a Journal's; the journal then begins at BYTES.
   98 bytes of RAM, which name and key stay in. */
#ifndef SPOORWAY_IDENTITY_H
#define SPOORWAY_IDENTITY_H

#include <Spoorway.h>

namespace spoorway {

template <class Cells> class Identity {
  enum { HEAD = 4, MOST = 186, LINE = 40, PATIENCE_MS = 3000 };
  Cells cells;

  bool whole() const {
    if (cells.read(0) != 'S' || cells.read(1) != 'W' || cells.read(2) != 1 || cells.read(3) > MOST) return false;
    return sum(0, cells.read(3) + HEAD + 2) == 0;
  }
  uint16_t sum(uint16_t at, uint16_t count) const {
    uint16_t crc = 0xFFFF;
    while (count--) crc = crc16(crc, cells.read(at++));
    return crc;
  }
  static uint8_t nibble(char c) { return c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10; }

  struct Port {
    Stream &stream;
    uint16_t crc;
    static void emit(void *self, uint8_t c) {
      Port *port = static_cast<Port *>(self);
      port->crc = crc16(port->crc, c);
      port->stream.write(c);
    }
  };

  /* A line from `!` to before the line feed. True: it was for us, and is answered. */
  bool answer(Stream &stream, char *line, uint8_t n) {
    if (n < 9 || line[1] != 'p' || line[2] != ',' || line[n - 5] != '*') return false;
    uint16_t crc = 0xFFFF, said = 0, offset = 0;
    for (uint8_t i = 1; i < n - 5; i++) crc = crc16(crc, line[i]);
    for (uint8_t i = n - 4; i < n; i++) said = said << 4 | nibble(line[i]);
    if (crc != said) return false;
    uint8_t at = 3;
    while (line[at] >= '0' && line[at] <= '9') offset = offset * 10 + (line[at++] - '0');
    uint8_t count = (uint8_t)(n - 5 - ++at) / 2;
    bool fits = offset + count <= BYTES;
    for (uint8_t i = 0; fits && i < count; i++) {
      uint8_t value = nibble(line[at + 2 * i]) << 4 | nibble(line[at + 2 * i + 1]);
      if (cells.read(offset + i) != value) cells.write(offset + i, value);
    }
    cells.settle();
    Port port = {stream, 0xFFFF};
    Out out(Port::emit, &port);
    stream.write('@');
    out.put('p'), out.put(','), out.number(offset), out.put(',');
    if (count ? fits : whole()) {
      uint16_t found = count ? sum(offset, count) : cells.read(cells.read(3) + HEAD) << 8 | cells.read(cells.read(3) + HEAD + 1);
      out.hex(found >> 8), out.hex((uint8_t)found);
    }
    crc = port.crc;
    out.put('*'), out.hex(crc >> 8), out.hex((uint8_t)crc), out.put('\n');
    return true;
  }

 public:
  enum { BYTES = 192 };
  enum Tag { NAME = 1, KEY, PASSWORD, HOST, PORT, WIFI, PASSPHRASE };
  char name[65];
  uint8_t key[32];

  explicit Identity(const Cells &c = Cells()) : cells(c), name(), key() {}

  /* The field's length; as much of it as there is room for in `into`. 0: the board has none. */
  uint8_t read(Tag tag, uint8_t *into, uint8_t room) const {
    if (!whole()) return 0;
    for (uint16_t at = HEAD, end = HEAD + cells.read(3); at + 2 <= end; at += 2 + cells.read(at + 1))
      if (cells.read(at) == tag) {
        uint8_t length = cells.read(at + 1);
        for (uint8_t i = 0; i < length && i < room; i++) into[i] = cells.read(at + 2 + i);
        return length;
      }
    return 0;
  }

  /* Whether the board has a name now, in `name` with its end, and `key`. Returns after wait_ms unless the tool asks. */
  bool begin(Stream &stream, uint16_t wait_ms = 700) {
    char line[LINE];
    uint8_t n = 0;
    uint32_t since = millis();
    stream.print(F("\r\nspoorway\r\n"));
    while (millis() - since < wait_ms) {
      int c = stream.read();
      if (c < 0) continue;
      if (c == '!' || n == LINE) n = 0;
      if (c != '\n') {
        line[n++] = (char)c;
      } else {
        if (answer(stream, line, n)) since = millis(), wait_ms = PATIENCE_MS;
        n = 0;
      }
    }
    uint8_t length = read(NAME, (uint8_t *)name, sizeof name - 1);
    name[length] = 0;
    read(KEY, key, sizeof key);
    return length > 0;
  }
};

}  // namespace spoorway
#endif

/* board: an Arduino Uno or Mega in libsimavr. Its UART is a pseudo terminal, its EEPROM a file in which each written byte is at once.

   board -x app.elf [-m mcu] [-e eeprom] [-l link] [-f] [-r SEED [-k CUTS] [-a PERCENT]] [-t SECONDS]
     -l  a symbolic link to the terminal       -f  as fast as it can be, not in real time
     -t  power off after so many seconds of board time
     -k  cut the power that often at random moments (see below), and power up again at once on the same EEPROM
     -C  one cut after so many seconds
     -p  ADDRESS,LENGTH: at each cut, print these bytes of RAM in hex digits: what the program knew
     -a  so many of 100 answers the board gets are spoiled: a byte of the line is another one

   A cut stops the processor. If an EEPROM cell is being written at that moment it keeps its old value, is left erased (all ones), partly
   programmed (bits that are to become 0 are still 1) or, where it is programmed without being erased, partly cleared.
   Written for simavr 1.6, which stores a cell at once: the 3.4 ms (1.8 ms without erasure) it is busy are added here.
   SIGTERM = power off, SIGUSR1 = the reset button. simavr is GPL-3: this program is for tests and is not distributed. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "avr_eeprom.h"
#include "avr_uart.h"
#include "sim_avr.h"
#include "sim_elf.h"

static volatile sig_atomic_t reset_pressed, power_off;
static void pressed(int number) {
  if (number == SIGUSR1)
    reset_pressed = 1;
  else
    power_off = 1;
}

static int terminal, may_send = 1;
static avr_eeprom_t *eeprom;
static avr_io_write_t program_cell;
static void *program_argument;
static struct { int busy; unsigned cell; uint8_t before, after; int erases; } writing;
static unsigned long long writes;
static uint32_t seed;

static uint32_t draw(void) { /* xorshift */
  seed ^= seed << 13;
  seed ^= seed >> 17;
  return seed ^= seed << 5;
}

static void from_board(struct avr_irq_t *irq, uint32_t value, void *unused) {
  (void)irq, (void)unused;
  uint8_t byte = (uint8_t)value;
  if (write(terminal, &byte, 1) != 1) {
  } /* nobody reads: lost, as on a wire */
}
static void on_xon(struct avr_irq_t *irq, uint32_t value, void *unused) {
  (void)irq, (void)value, (void)unused;
  may_send = 1;
}
static void on_xoff(struct avr_irq_t *irq, uint32_t value, void *unused) {
  (void)irq, (void)value, (void)unused;
  may_send = 0;
}

static avr_cycle_count_t cell_done(struct avr_t *avr, avr_cycle_count_t when, void *unused) {
  (void)when, (void)unused;
  avr->data[eeprom->r_eecr] &= (uint8_t)~2;
  writing.busy = 0;
  return 0;
}

static void on_eecr(struct avr_t *avr, avr_io_addr_t address, uint8_t value, void *unused) {
  (void)unused;
  unsigned at = (avr->data[eeprom->r_eearl] | avr->data[eeprom->r_eearh] << 8) & (unsigned)(eeprom->size - 1);
  int starts = (avr->data[eeprom->r_eecr] & 4) && (value & 2), mode = value & 0x30;
  uint8_t before = eeprom->eeprom[at];
  program_cell(avr, address, value, program_argument);
  if (!starts) return;
  if (mode == 0x20) eeprom->eeprom[at] &= before; /* without erasure bits only become 0 */
  writing.cell = at, writing.before = before, writing.after = eeprom->eeprom[at], writing.erases = mode != 0x20, writing.busy = 1;
  writes++;
  avr->data[eeprom->r_eecr] |= 2;
  avr_cycle_timer_register_usec(avr, mode == 0x20 ? 1800 : 3400, cell_done, 0);
}

static void cut(void) { /* what the cell in the making is left as */
  if (!writing.busy) return;
  uint8_t noise = (uint8_t)(draw() >> 8), *cell = eeprom->eeprom + writing.cell;
  switch (draw() >> 4 & 3) {
    case 0: *cell = writing.before; break;
    case 1: *cell = writing.erases ? 0xFF : writing.after; break;
    case 2: *cell = writing.after | (writing.erases ? noise : (uint8_t)(noise & writing.before)); break;
    default: *cell = writing.after; break;
  }
  writing.busy = 0;
}

static void *mapped(const char *name, size_t size) {
  int file = open(name, O_RDWR | O_CREAT, 0644);
  if (file < 0) perror(name), exit(2);
  for (off_t have = lseek(file, 0, SEEK_END); have < (off_t)size; have++)
    if (write(file, "\377", 1) != 1) exit(2);
  void *memory = mmap(0, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (memory == MAP_FAILED) perror("mmap"), exit(2);
  return memory;
}

static avr_t *powered(const char *mcu, elf_firmware_t *firmware, uint8_t *cells) {
  avr_t *avr = avr_make_mcu_by_name(mcu);
  if (!avr) exit(2);
  avr_init(avr);
  avr->frequency = 16000000;
  avr->log = 1;
  avr_load_firmware(avr, firmware);
  memset(avr->data + 0x100, 0xC5, (size_t)avr->ramend - 0xFF); /* as memory is when power comes, and so that a stack leaves its trace */
  for (avr_io_t *io = avr->io_port; io; io = io->next)
    if (!strcmp(io->kind, "eeprom")) eeprom = (avr_eeprom_t *)io;
  int register_ = AVR_DATA_TO_IO(eeprom->r_eecr);
  program_cell = avr->io[register_].w.c;
  program_argument = avr->io[register_].w.param;
  avr->io[register_].w.c = on_eecr;
  if (cells) {
    free(eeprom->eeprom);
    eeprom->eeprom = cells;
  }
  uint32_t flags = 0; /* simavr naps when a program asks for the UART's state, and prints what it says */
  avr_ioctl(avr, AVR_IOCTL_UART_GET_FLAGS('0'), &flags);
  flags &= ~(uint32_t)(AVR_UART_FLAG_STDIO | AVR_UART_FLAG_POOL_SLEEP);
  avr_ioctl(avr, AVR_IOCTL_UART_SET_FLAGS('0'), &flags);
  avr_irq_register_notify(avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ('0'), UART_IRQ_OUTPUT), from_board, 0);
  avr_irq_register_notify(avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ('0'), UART_IRQ_OUT_XON), on_xon, 0);
  avr_irq_register_notify(avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ('0'), UART_IRQ_OUT_XOFF), on_xoff, 0);
  may_send = 1;
  return avr;
}

static int64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000000000LL + now.tv_nsec;
}

int main(int count, char **words) {
  const char *mcu = "atmega328p", *cells_file = 0, *link = 0, *app = 0;
  double seconds = 0;
  int paced = 1, spoiled = 0, option;
  long cuts = 0;
  unsigned shown_at = 0, shown = 0;
  uint64_t first_cut = 0;
  while ((option = getopt(count, words, "x:m:e:l:fr:k:a:t:p:C:")) > 0) switch (option) {
      case 'x': app = optarg; break;
      case 'm': mcu = optarg; break;
      case 'e': cells_file = optarg; break;
      case 'l': link = optarg; break;
      case 'f': paced = 0; break;
      case 'r': seed = (uint32_t)strtoul(optarg, 0, 10) * 2654435761u | 1; break;
      case 'k': cuts = atol(optarg); break;
      case 'a': spoiled = atoi(optarg); break;
      case 'p': sscanf(optarg, "%x,%u", &shown_at, &shown); break;
      case 'C': first_cut = (uint64_t)(atof(optarg) * 16e6), cuts = 1; break;
      case 't': seconds = atof(optarg); break;
      default: return 2;
    }
  if (!app) return 2;
  setvbuf(stdout, 0, _IOLBF, 0);
  elf_firmware_t firmware = {0};
  if (elf_read_firmware(app, &firmware)) return 2;
  firmware.frequency = 16000000;
  uint8_t *cells = cells_file ? mapped(cells_file, !strcmp(mcu, "atmega2560") ? 4096 : 1024) : 0;
  int other;
  char name[64];
  if (openpty(&terminal, &other, name, 0, 0)) return 2; /* `other` stays open, so that the terminal lives between two readers */
  struct termios raw;
  tcgetattr(other, &raw);
  cfmakeraw(&raw);
  tcsetattr(other, TCSANOW, &raw);
  fcntl(terminal, F_SETFL, O_NONBLOCK);
  if (link) {
    unlink(link);
    if (symlink(name, link)) perror(link);
  }
  signal(SIGUSR1, pressed), signal(SIGTERM, pressed), signal(SIGINT, pressed);

  avr_t *avr = powered(mcu, &firmware, cells);
  printf("ready %s\n", name);
  uint64_t off = seconds > 0 ? (uint64_t)(seconds * 16e6) : 0, look = 0, begun = 0, spent = 0, next_cut = 0;
  int64_t start = now_ns();
  long done = 0;
  for (;;) {
    int state = avr_run(avr);
    if (state == cpu_Done || state == cpu_Crashed) return printf("crashed\n"), 3;
    if (cuts && !next_cut) next_cut = first_cut ? first_cut : avr->cycle + 400000 + draw() % 4000000; /* 25 to 275 ms from now */
    if (cuts && avr->cycle >= next_cut) {
      cut();
      printf("knew ");
      for (unsigned i = 0; i < shown; i++) printf("%02x", avr->data[shown_at + i]);
      printf("\n");
      spent += avr->cycle - begun;
      if (!cells) return 2;
      eeprom->eeprom = malloc(1); /* what the simulator frees is not the file */
      avr_terminate(avr);
      avr = powered(mcu, &firmware, cells);
      look = begun = next_cut = 0;
      if (++done == cuts) {
        cuts = spoiled = 0;
        printf("cut %ld times, %llu cells written, %.1f s of board time\n", done, writes, (double)spent / 16e6);
      }
      continue;
    }
    if (off && spent + avr->cycle >= off) return printf("off\n"), 0;
    if (avr->cycle < look) continue;
    look = avr->cycle + 1000; /* 62 microseconds */
    if (power_off) return 0;
    if (reset_pressed) {
      reset_pressed = 0;
      avr_reset(avr);
    }
    avr_irq_t *in = avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ('0'), UART_IRQ_INPUT);
    uint8_t byte;
    static int spoil;
    while (may_send && read(terminal, &byte, 1) == 1) {
      if (byte == '!') spoil = spoiled && (int)(draw() % 100) < spoiled;
      if (spoil && byte == '*') byte = '#', spoil = 0;
      avr_raise_irq(in, byte);
    }
    if (paced) {
      int64_t ahead = (int64_t)((double)(spent + avr->cycle) * 62.5) - (now_ns() - start);
      if (ahead > 1000000) usleep((useconds_t)(ahead / 1000));
    }
  }
}

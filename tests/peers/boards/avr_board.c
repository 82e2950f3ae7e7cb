/* An Arduino board on a desk: simavr's processor, a pseudo terminal for its USB cable, its flash and EEPROM as files.
 *
 *   avr_board MCU FLASH_FILE EEPROM_FILE LINK [BOOT_LOADER.hex]
 *
 * LINK becomes a symbolic link to the terminal. Whoever opens that pulls the reset line, as the USB chip of an Uno does. Both memories are
 * mapped files, so SIGKILL is what a pulled cable is. SIGUSR1 is the reset button, SIGTERM the end. Says READY when the board runs, RESET at each.
 * Runs at the speed of a 16 MHz board, or as fast as it can.
 */
#define _GNU_SOURCE
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

enum { HZ = 16000000, LOOK_CYCLES = 1000 };

static volatile sig_atomic_t pressed, ended;
static int cable = -1, listening = 1;

static void on_signal(int number) {
  if (number == SIGUSR1) pressed = 1;
  else ended = 1;
}

static void die(const char *what) {
  perror(what);
  exit(2);
}

static void says(struct avr_irq_t *irq, uint32_t value, void *param) {
  (void)irq, (void)param;
  uint8_t byte = (uint8_t)value;
  if (write(cable, &byte, 1) != 1) { /* nobody is there: lost, as on a wire */
  }
}

static void can_hear(struct avr_irq_t *irq, uint32_t value, void *param) {
  (void)irq, (void)value;
  listening = param != NULL;
}

static uint8_t *memory(const char *path, size_t size) {
  int fd = open(path, O_RDWR | O_CREAT, 0644);
  if (fd < 0) die(path);
  off_t have = lseek(fd, 0, SEEK_END);
  for (uint8_t blank = 0xff; have < (off_t)size; have++)
    if (write(fd, &blank, 1) != 1) die(path);
  uint8_t *found = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (found == MAP_FAILED) die(path);
  close(fd);
  return found;
}

/* Intel HEX into memory; the lowest address, where a boot loader begins. */
static uint32_t burn(const char *path, uint8_t *into, uint32_t size) {
  FILE *file = fopen(path, "r");
  if (!file) die(path);
  char line[600];
  uint32_t base = 0, lowest = UINT32_MAX;
  while (fgets(line, sizeof line, file)) {
    unsigned count, address, type, value;
    if (sscanf(line, ":%2x%4x%2x", &count, &address, &type) != 3) continue;
    if (type == 2 || type == 4) {
      if (sscanf(line + 9, "%4x", &value) == 1) base = value << (type == 2 ? 4 : 16);
    } else if (type == 0) {
      for (unsigned i = 0; i < count; i++)
        if (sscanf(line + 9 + 2 * i, "%2x", &value) == 1 && base + address + i < size) into[base + address + i] = (uint8_t)value;
      if (count && base + address < lowest) lowest = base + address;
    }
  }
  fclose(file);
  return lowest;
}

int main(int count, char **arguments) {
  if (count < 5) return fprintf(stderr, "avr_board MCU FLASH EEPROM LINK [BOOT_LOADER]\n"), 2;
  avr_t *avr = avr_make_mcu_by_name(arguments[1]);
  if (!avr) return 2;
  avr_init(avr);
  avr->frequency = HZ;
  avr->log = 1;
  avr->flash = memory(arguments[2], avr->flashend + 1);
  avr->codeend = avr->flashend;
  for (avr_io_t *io = avr->io_port; io; io = io->next)
    if (!strcmp(io->kind, "eeprom")) ((avr_eeprom_t *)io)->eeprom = memory(arguments[3], ((avr_eeprom_t *)io)->size);
  if (count > 5) avr->pc = avr->reset_pc = burn(arguments[5], avr->flash, avr->flashend + 1);
  avr_regbit_set(avr, avr->reset_flags.porf);

  int far_end;
  char name[64];
  if (openpty(&cable, &far_end, name, NULL, NULL)) die("openpty");
  struct termios raw;
  tcgetattr(far_end, &raw);
  cfmakeraw(&raw);
  tcsetattr(far_end, TCSANOW, &raw);
  close(far_end);
  fcntl(cable, F_SETFL, O_NONBLOCK);
  unlink(arguments[4]);
  if (symlink(name, arguments[4])) die(arguments[4]);

  uint32_t flags = 0;
  avr_ioctl(avr, AVR_IOCTL_UART_GET_FLAGS('0'), &flags);
  flags &= ~(uint32_t)(AVR_UART_FLAG_STDIO | AVR_UART_FLAG_POOL_SLEEP); /* polling would put the processor to sleep */
  avr_ioctl(avr, AVR_IOCTL_UART_SET_FLAGS('0'), &flags);
  avr_irq_t *hears = avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ('0'), UART_IRQ_INPUT);
  avr_irq_register_notify(avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ('0'), UART_IRQ_OUTPUT), says, NULL);
  avr_irq_register_notify(avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ('0'), UART_IRQ_OUT_XON), can_hear, avr);
  avr_irq_register_notify(avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ('0'), UART_IRQ_OUT_XOFF), can_hear, NULL);
  signal(SIGUSR1, on_signal);
  signal(SIGTERM, on_signal);
  signal(SIGINT, on_signal);
  setvbuf(stdout, NULL, _IOLBF, 0);
  printf("READY %s\n", name);

  struct timespec begin, now;
  clock_gettime(CLOCK_MONOTONIC, &begin);
  avr_cycle_count_t look = 0;
  int64_t lag_ns = 0;
  for (int alone = 1;;) {
    int state = avr_run(avr);
    if (state == cpu_Done || state == cpu_Crashed) return printf("CRASHED\n"), 3;
    if (avr->cycle < look) continue;
    look = avr->cycle + LOOK_CYCLES;
    if (ended) return 0;
    struct pollfd end = {cable, POLLIN, 0};
    poll(&end, 1, 0);
    int now_alone = !!(end.revents & POLLHUP);
    if (pressed || (alone && !now_alone)) {
      pressed = 0;
      avr_reset(avr);
      avr_regbit_set(avr, avr->reset_flags.extrf); /* a boot loader stays only after a reset from outside */
      printf("RESET\n");
    }
    alone = now_alone;
    for (uint8_t byte; listening && read(cable, &byte, 1) == 1;) avr_raise_irq(hears, byte);
    clock_gettime(CLOCK_MONOTONIC, &now);
    int64_t ahead_ns = (int64_t)(avr->cycle * 125 / 2) + lag_ns - ((now.tv_sec - begin.tv_sec) * 1000000000LL + now.tv_nsec - begin.tv_nsec);
    if (ahead_ns > 1000000) usleep((useconds_t)(ahead_ns / 1000));
    else if (ahead_ns < -100000000) lag_ns -= ahead_ns; /* what a busy machine has lost is not made up for in a rush */
  }
}

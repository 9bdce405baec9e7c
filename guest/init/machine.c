/* The machine around init: the boot marker, the console, the kernel's command line, the end. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/io.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "guest/init/init.h"

#ifndef FIFREEZE /* linux/fs.h, which musl does not have */
#define FIFREEZE _IOWR('X', 119, int)
#endif

void write_boot_marker(void) {
  /* Not every kernel has ioperm, and not every monitor listens: then nobody counts. */
  if (ioperm(SMOL_BOOT_MARKER_PORT, 1, 1) != 0) return;
  outb(SMOL_BOOT_MARKER_INIT, SMOL_BOOT_MARKER_PORT);
  ioperm(SMOL_BOOT_MARKER_PORT, 1, 0);
}

void open_console(void) {
  if (fcntl(2, F_GETFD) >= 0) return;
  int console = open("/dev/console", O_RDWR | O_NOCTTY);
  if (console < 0) console = open("/dev/null", O_RDWR);
  if (console < 0) return;
  for (int fd = 0; fd < 3; fd++) {
    if (console != fd) dup2(console, fd);
  }
  if (console > 2) close(console);
}

void say(const char* text) {
  char line[640];
  int length = snprintf(line, sizeof line, "smol-init: %s\n", text);
  if (length >= (int)sizeof line) length = sizeof line - 1;
  ssize_t ignored = write(2, line, (size_t)length); /* a console that takes nothing has no reader */
  (void)ignored;
}

void say_failure(const struct failure* failure) {
  if (failure->text[0] != '\0') say(failure->text);
}

const char* kernel_command_line(void) {
  static char line[8192];
  static bool loaded;
  if (loaded) return line;
  int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return "";
  ssize_t length = read(fd, line, sizeof line - 1);
  close(fd);
  if (length > 0 && line[length - 1] == '\n') length--;
  line[length > 0 ? length : 0] = '\0';
  loaded = true;
  return line;
}

const char* kernel_argument(const char* word) {
  static char value[512];
  size_t length = strlen(word);
  for (const char* at = kernel_command_line(); *at != '\0';) {
    size_t token = strcspn(at, " ");
    if (token == 2 && memcmp(at, "--", 2) == 0) break; /* what follows are init's arguments */
    if (token >= length && memcmp(at, word, length) == 0 &&
        (token == length || at[length] == '=')) {
      size_t size = token == length ? 0 : token - length - 1;
      if (size >= sizeof value) size = sizeof value - 1;
      memcpy(value, at + length + 1, size);
      value[size] = '\0';
      return value;
    }
    at += token;
    at += strspn(at, " ");
  }
  return NULL;
}

void set_oom_score(const char* score) {
  int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (fd < 0) return;
  ssize_t ignored = write(fd, score, strlen(score));
  (void)ignored;
  close(fd);
}

void kill_everything(void) {
  kill(-1, SIGKILL);
  /* A process stuck in the kernel cannot be waited for; two seconds are enough for all others. */
  for (int tries = 0; tries < 200; tries++) {
    pid_t pid;
    while ((pid = waitpid(-1, NULL, WNOHANG)) > 0) {
    }
    if (pid < 0) return;
    nanosleep(&(struct timespec){.tv_nsec = 10 * 1000 * 1000}, NULL);
  }
}

static int kept_mounts[4];
static int kept_count;

void remember_to_settle(const char* path) {
  int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  if (kept_count == (int)(sizeof kept_mounts / sizeof kept_mounts[0])) {
    close(fd);
  } else {
    kept_mounts[kept_count++] = fd;
  }
}

void settle_file_systems(void) {
  sync();
  if (kept_count == 0) return;
  /* The overlay first: it writes to what lies below. */
  mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY, NULL);
  for (int i = kept_count; i-- > 0;) {
    char path[40];
    snprintf(path, sizeof path, "/proc/self/fd/%d", kept_mounts[i]);
    if (mount(NULL, path, NULL, MS_REMOUNT | MS_RDONLY, NULL) == 0) continue;
    /* Something still writes. Frozen, the file system is as clean as unmounted; nothing thaws it.
     */
    ioctl(kept_mounts[i], FIFREEZE, 0);
  }
}

void end_machine(void) {
  sync();
  const char* way = kernel_argument("smol.end");
  bool can_power_off = access("/sys/firmware/acpi", F_OK) == 0;
  if (way != NULL && strcmp(way, "off") == 0) can_power_off = true;
  if (way != NULL && strcmp(way, "reset") == 0) can_power_off = false;
  /* Powering off without a way to do it halts the CPU for ever (kernel/reboot.c), which would
   * leave the monitor waiting: so a machine without ACPI is ended by a reset. */
  if (can_power_off) reboot(RB_POWER_OFF);
  reboot(RB_AUTOBOOT);
  for (;;) pause(); /* without CAP_SYS_BOOT there is nothing else to do */
}

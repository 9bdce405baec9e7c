/* The guest's own figures, from /proc. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "guest/init/init.h"

static bool read_text(const char* path, char* text, size_t room) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  size_t used = 0;
  ssize_t size;
  while (used < room - 1 && (size = read(fd, text + used, room - 1 - used)) > 0)
    used += (size_t)size;
  close(fd);
  text[used] = '\0';
  return true;
}

/* The number behind `name` at the start of a line; 0 where there is none. */
static uint64_t number_after(const char* text, const char* name) {
  size_t length = strlen(name);
  for (const char* line = text; line != NULL && *line != '\0';) {
    if (strncmp(line, name, length) == 0) return strtoull(line + length, NULL, 10);
    line = strchr(line, '\n');
    if (line != NULL) line++;
  }
  return 0;
}

void parse_meminfo(char* text, struct smol_stats* stats) {
  stats->memory_total = number_after(text, "MemTotal:") * 1024;
  stats->memory_free = number_after(text, "MemFree:") * 1024;
  stats->memory_available = number_after(text, "MemAvailable:") * 1024;
  stats->memory_cached = (number_after(text, "Cached:") + number_after(text, "Buffers:")) * 1024;
  uint64_t swap = number_after(text, "SwapTotal:");
  uint64_t free_swap = number_after(text, "SwapFree:");
  stats->swap_used = swap > free_swap ? (swap - free_swap) * 1024 : 0;
}

void parse_proc_stat(char* text, long ticks_per_second, struct smol_stats* stats) {
  char* at = text;
  uint64_t ticks[8] = {0}; /* user nice system idle iowait irq softirq steal */
  if (strncmp(at, "cpu ", 4) == 0) {
    at += 4;
    for (size_t i = 0; i < 8; i++) ticks[i] = strtoull(at, &at, 10);
  }
  uint64_t tick_ns = 1000000000u / (uint64_t)(ticks_per_second > 0 ? ticks_per_second : 100);
  stats->cpu_idle_ns = (ticks[3] + ticks[4]) * tick_ns;
  stats->cpu_busy_ns = (ticks[0] + ticks[1] + ticks[2] + ticks[5] + ticks[6]) * tick_ns;
  stats->processes_running = number_after(text, "procs_running ");
  stats->cpus = 0;
  for (const char* line = text; line != NULL && *line != '\0';) {
    if (strncmp(line, "cpu", 3) == 0 && line[3] >= '0' && line[3] <= '9') stats->cpus++;
    line = strchr(line, '\n');
    if (line != NULL) line++;
  }
}

/* "0.08 0.03 0.01 1/34 567": averages with two digits behind the point, running/all, the last
 * process. */
void parse_loadavg(char* text, struct smol_stats* stats) {
  uint64_t* const load[3] = {&stats->load_1, &stats->load_5, &stats->load_15};
  char* at = text;
  for (size_t i = 0; i < 3; i++) {
    *load[i] = strtoull(at, &at, 10) * 1000;
    if (*at == '.') *load[i] += strtoull(at + 1, &at, 10) * 10;
  }
  strtoull(at, &at, 10);
  stats->processes = *at == '/' ? strtoull(at + 1, NULL, 10) : 0;
}

static uint64_t clock_ns(clockid_t clock) {
  struct timespec now = {0};
  clock_gettime(clock, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void fill_stats(struct smol_stats* stats) {
  static char text[65536];
  stats->uptime_ns = clock_ns(CLOCK_BOOTTIME);
  stats->realtime_ns = clock_ns(CLOCK_REALTIME);
  if (read_text("/proc/meminfo", text, sizeof text)) parse_meminfo(text, stats);
  if (read_text("/proc/stat", text, sizeof text))
    parse_proc_stat(text, sysconf(_SC_CLK_TCK), stats);
  if (read_text("/proc/loadavg", text, sizeof text)) parse_loadavg(text, stats);
  struct statvfs root;
  if (statvfs("/", &root) == 0) {
    stats->root_total = (uint64_t)root.f_blocks * root.f_frsize;
    stats->root_free = (uint64_t)root.f_bavail * root.f_frsize;
  }
}

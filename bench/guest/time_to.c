/* time_to MARK COMMAND...: runs the command, waits for MARK in its standard output, prints the
 * nanoseconds from the start to then, and kills it. With MARK "" it waits for the end and also
 * prints the peak resident size in KiB. For benchmarks inside the bench host, which has no
 * scripting language. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int main(int argc, char** argv) {
  static char seen[1 << 20];
  size_t size = 0;
  int ends[2];
  if (argc < 3 || pipe(ends) != 0) return 2;
  const uint64_t start = now();
  const pid_t child = fork();
  if (child == 0) {
    const int null = open("/dev/null", O_RDWR);
    dup2(null, 0);
    dup2(ends[1], 1);
    close(ends[0]);
    execvp(argv[2], argv + 2);
    _exit(127);
  }
  close(ends[1]);
  for (;;) {
    const ssize_t got = read(ends[0], seen + size, sizeof(seen) - size - 1);
    if (got <= 0) break;
    size += (size_t)got;
    if (*argv[1] && memmem(seen, size, argv[1], strlen(argv[1]))) {
      printf("%llu\n", (unsigned long long)(now() - start));
      kill(child, SIGKILL);
      return 0;
    }
  }
  int status;
  struct rusage usage;
  wait4(child, &status, 0, &usage);
  if (*argv[1]) {
    fprintf(stderr, "time_to: no mark; the output was:\n%s\n", seen);
    return 1;
  }
  printf("%llu %ld\n", (unsigned long long)(now() - start), usage.ru_maxrss);
  return 0;
}

/* time_to MARK COMMAND...: runs the command, waits for MARK in its standard output, prints the
 * nanoseconds from the start to then, and kills it. With MARK "" it waits for the end and also
 * prints the peak resident size in KiB. With TIME_TO_HTTP=PORT in the environment it asks
 * 127.0.0.1:PORT for "/" behind MARK, and the time is until the answer. For benchmarks inside the
 * bench host, which has no scripting language. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int answered(const char* port) {
  static const char request[] = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
  char answer[16];
  struct sockaddr_in address = {.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)atoi(port)),
                                .sin_addr = {htonl(INADDR_LOOPBACK)}};
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  const int good = connect(fd, (struct sockaddr*)&address, sizeof(address)) == 0 &&
                   write(fd, request, sizeof(request) - 1) == (ssize_t)sizeof(request) - 1 &&
                   recv(fd, answer, 12, MSG_WAITALL) == 12 &&
                   memcmp(answer, "HTTP/1.1 200", 12) == 0;
  close(fd);
  return good;
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
      const char* const port = getenv("TIME_TO_HTTP");
      const int good = port == NULL || answered(port);
      printf("%llu\n", (unsigned long long)(now() - start));
      kill(child, SIGKILL);
      if (!good) fprintf(stderr, "time_to: no answer at port %s\n", port);
      return good ? 0 : 1;
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

// The guest's end of sessions_test.py: `unix_peer ask PATH` sends its standard input to a Unix
// socket, ends that direction and prints what comes back; `unix_peer agent PATH` keeps it open and
// prints one answer of the ssh agent; `unix_peer serve PATH` answers each connection with what
// came, in capitals, and ends when asked "end".
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static char buffer[65536];

static int fail(const char* what) {
  perror(what);
  return 1;
}

static int copy(int from, int to) {
  ssize_t got;
  while ((got = read(from, buffer, sizeof(buffer))) > 0)
    for (ssize_t put = 0, more; put < got; put += more)
      if ((more = write(to, buffer + put, (size_t)(got - put))) < 0) return -1;
  return got < 0 ? -1 : 0;
}

static int serve(int listener) {
  for (;;) {
    size_t size = 0;
    ssize_t got;
    const int client = accept(listener, NULL, NULL);
    if (client < 0) return fail("accept");
    while (size < sizeof(buffer) && (got = read(client, buffer + size, sizeof(buffer) - size)) > 0)
      size += (size_t)got;
    const int end = size == 3 && memcmp(buffer, "end", 3) == 0;
    for (size_t i = 0; i < size; ++i) buffer[i] = (char)toupper((unsigned char)buffer[i]);
    if (write(client, buffer, size) != (ssize_t)size) return fail("write");
    close(client);
    if (end) return 0;
  }
}

// A message is a length of four bytes, big-endian, and that many bytes. The agent drops a client
// that has ended its direction.
static int one_answer(int fd) {
  size_t size = 0, wanted = 4;
  while (size < wanted && wanted <= sizeof(buffer)) {
    const ssize_t got = read(fd, buffer + size, wanted - size);
    if (got <= 0) return fail("read");
    size += (size_t)got;
    if (size == 4) wanted = 4 + ((size_t)(unsigned char)buffer[2] << 8) + (unsigned char)buffer[3];
  }
  return write(1, buffer, size) == (ssize_t)size ? 0 : fail("write");
}

int main(int argc, char** argv) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  if (argc != 3 || strlen(argv[2]) + 1 >= sizeof(address.sun_path)) return 2;
  strcpy(address.sun_path, argv[2]);
  if (strcmp(argv[1], "serve") == 0) {
    // It has its name when it listens.
    strcat(address.sun_path, "~");
    if (bind(fd, (struct sockaddr*)&address, sizeof(address)) != 0 || listen(fd, 16) != 0 ||
        rename(address.sun_path, argv[2]) != 0)
      return fail(argv[2]);
    return serve(fd);
  }
  if (connect(fd, (struct sockaddr*)&address, sizeof(address)) != 0) return fail(argv[2]);
  if (strcmp(argv[1], "agent") == 0) return copy(0, fd) != 0 ? fail("copy") : one_answer(fd);
  if (copy(0, fd) != 0 || shutdown(fd, SHUT_WR) != 0 || copy(fd, 1) != 0) return fail("copy");
  return 0;
}

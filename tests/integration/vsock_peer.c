// The guest's end of devices_test.py: `vsock_peer connect|listen PORT BYTES` sends that many bytes
// of a known pattern and takes as many of the same pattern, both at once, ends its direction, and
// waits for the other's end.
#include <errno.h>
#include <linux/vm_sockets.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static unsigned char buffer[65536];

static unsigned char pattern(long at) { return (unsigned char)(at * 7 + (at >> 8)); }

static int fail(const char* what) {
  printf("%s: %s\n", what, strerror(errno));
  return 1;
}

static int open_stream(const char* how, unsigned port) {
  struct sockaddr_vm address = {
      .svm_family = AF_VSOCK, .svm_port = port, .svm_cid = VMADDR_CID_HOST};
  const int fd = socket(AF_VSOCK, SOCK_STREAM, 0);
  if (strcmp(how, "connect") == 0)
    return connect(fd, (struct sockaddr*)&address, sizeof(address)) == 0 ? fd : -1;
  address.svm_cid = VMADDR_CID_ANY;
  if (bind(fd, (struct sockaddr*)&address, sizeof(address)) != 0 || listen(fd, 1) != 0) return -1;
  return accept(fd, NULL, NULL);
}

int main(int count, char** words) {
  if (count != 4) return 2;
  const long total = atol(words[3]);
  const int fd = open_stream(words[1], (unsigned)atol(words[2]));
  if (fd < 0) return fail(words[1]);
  long sent = 0, received = 0;
  int ended = 0;  // the other's direction, which may end before ours
  while (!ended || sent < total) {
    struct pollfd entry = {.fd = fd, .events = (ended ? 0 : POLLIN) | (sent < total ? POLLOUT : 0)};
    poll(&entry, 1, -1);
    if (sent < total && (entry.revents & POLLOUT) != 0) {
      const long size = total - sent < 65536 ? total - sent : 65536;
      for (long i = 0; i < size; ++i) buffer[i] = pattern(sent + i);
      const ssize_t put = send(fd, buffer, (size_t)size, MSG_DONTWAIT | MSG_NOSIGNAL);
      if (put < 0 && errno != EAGAIN) return fail("send");
      if (put > 0) sent += put;
      if (sent == total) shutdown(fd, SHUT_WR);
    }
    if (ended || (entry.revents & (POLLIN | POLLHUP)) == 0) continue;
    const ssize_t got = recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT);
    if (got == 0) ended = 1;
    if (got < 0 && errno != EAGAIN) return fail("recv");
    for (ssize_t i = 0; i < got; ++i)
      if (buffer[i] != pattern(received++)) return printf("wrong byte %ld\n", received - 1), 1;
  }
  printf("%s: sent %ld, received %ld\n", words[1], sent, received);
  return sent != total || received != total;
}

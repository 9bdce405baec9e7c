/* Connections with the host: out at the start, in for requests. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "guest/init/init.h"

enum { kAfVsock = 40 }; /* AF_VSOCK; musl has no linux/vm_sockets.h, whose struct stands below */
struct vsock_address {
  sa_family_t family;
  uint16_t reserved;
  uint32_t port;
  uint32_t cid;
  uint8_t flags;
  uint8_t zero[3];
};
#define ANY_CID 0xffffffffu

/* Tests hand over sockets instead: init then runs in a PID namespace, without a machine. */
static int handed_over(const char* name) {
  const char* text = getenv(name);
  if (text == NULL) return -1;
  int fd = atoi(text);
  fcntl(fd, F_SETFD, FD_CLOEXEC);
  unsetenv(name);
  return fd;
}

int connect_port(uint32_t port) {
  int fd = socket(kAfVsock, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  struct vsock_address address = {.family = kAfVsock, .port = port, .cid = SMOL_HOST_CID};
  if (connect(fd, (struct sockaddr*)&address, sizeof address) == 0) return fd;
  int error = errno;
  close(fd);
  errno = error;
  return -1;
}

int connect_host(bool* no_device) {
  *no_device = false;
  int fd = handed_over("SMOL_HOST_FD");
  if (fd >= 0) return fd;
  /* A host that is about to listen, or a driver that is still probing, gets a second. */
  for (int tries = 0; tries < 50; tries++) {
    fd = connect_port(SMOL_RUN_PORT);
    if (fd >= 0) return fd;
    if (errno == ENODEV || errno == EAFNOSUPPORT) {
      *no_device = true;
      return -1;
    }
    nanosleep(&(struct timespec){.tv_nsec = 20 * 1000 * 1000}, NULL);
  }
  return -1;
}

int listen_for_host(void) {
  int fd = handed_over("SMOL_AGENT_FD");
  if (fd >= 0) return fd;
  fd = socket(kAfVsock, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -1;
  struct vsock_address address = {.family = kAfVsock, .port = SMOL_AGENT_PORT, .cid = ANY_CID};
  if (bind(fd, (struct sockaddr*)&address, sizeof address) == 0 && listen(fd, 128) == 0) return fd;
  int error = errno;
  close(fd);
  errno = error;
  return -1;
}

int accept_host(int listener) {
  struct vsock_address peer = {.family = 0};
  socklen_t size = sizeof peer;
  int fd = accept4(listener, (struct sockaddr*)&peer, &size, SOCK_CLOEXEC);
  if (fd < 0) return -1;
  /* A process of the guest that finds a way to connect here is not the host. */
  if (peer.family == kAfVsock && peer.cid != SMOL_HOST_CID) {
    close(fd);
    return -1;
  }
  return fd;
}

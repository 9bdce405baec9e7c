/* A static HTTP/1.1 echo server, for capsules: answers each request with its own method, path and
 * body. One process, poll(2), no allocation; built by musl-gcc -static -Os.
 *
 *   echo_server [PORT]     default 8080; prints "listening on PORT" when it does
 *
 * The interface $ECHO_INTERFACE gets 10.0.2.15/24 first, where nobody else sets up the network.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { kClients = 64, kMost = 16384 };

static struct client {
  int fd;
  int used;
  char bytes[kMost];
} clients[kClients];

static void answer(struct client* client, int head, int length) {
  char line[256], reply[512];
  int size = 0;
  while (size < (int)sizeof line - 1 && client->bytes[size] != '\r' && size < head) {
    line[size] = client->bytes[size];
    size++;
  }
  line[size] = '\0';
  int count =
      snprintf(reply, sizeof reply,
               "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s\n",
               size + 1 + length, line);
  if (write(client->fd, reply, (size_t)count) < 0 ||
      (length > 0 && write(client->fd, client->bytes + head, (size_t)length) < 0)) {
    shutdown(client->fd, SHUT_RDWR);
  }
}

static int body_length(const char* head) {
  const char* at = strcasestr(head, "\r\ncontent-length:");
  return at == NULL ? 0 : atoi(at + 17);
}

/* Whole requests at the front are answered and dropped. */
static int serve(struct client* client) {
  ssize_t got = read(client->fd, client->bytes + client->used, (size_t)(kMost - 1 - client->used));
  if (got <= 0) return 0;
  client->used += (int)got;
  for (;;) {
    client->bytes[client->used] = '\0';
    char* end = strstr(client->bytes, "\r\n\r\n");
    if (end == NULL) return client->used < kMost - 1;
    int head = (int)(end - client->bytes) + 4, length = body_length(client->bytes);
    if (length < 0 || head + length >= kMost) return 0;
    if (client->used < head + length) return 1;
    answer(client, head, length);
    client->used -= head + length;
    memmove(client->bytes, client->bytes + head + length, (size_t)client->used);
  }
}

static void add(int fd) {
  for (int i = 0; i < kClients; i++) {
    if (clients[i].fd >= 0) continue;
    clients[i].fd = fd;
    clients[i].used = 0;
    return;
  }
  close(fd);
}

static int listen_on(int port) {
  struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons((unsigned short)port)};
  int fd = socket(AF_INET6, SOCK_STREAM, 0), on = 1;
  if (fd >= 0) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (fd < 0 || bind(fd, (struct sockaddr*)&address, sizeof address) != 0) {
    struct sockaddr_in old = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    if (fd >= 0) close(fd);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (fd < 0 || bind(fd, (struct sockaddr*)&old, sizeof old) != 0) return -1;
  }
  return listen(fd, 64) == 0 ? fd : -1;
}

static void set_up(const char* interface) {
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  struct ifreq request = {0};
  struct sockaddr_in* address = (struct sockaddr_in*)&request.ifr_addr;
  strncpy(request.ifr_name, interface, IFNAMSIZ - 1);
  address->sin_family = AF_INET;
  address->sin_addr.s_addr = inet_addr("10.0.2.15");
  if (ioctl(fd, SIOCSIFADDR, &request) != 0) perror("address");
  address->sin_addr.s_addr = inet_addr("255.255.255.0");
  if (ioctl(fd, SIOCSIFNETMASK, &request) != 0) perror("mask");
  request.ifr_flags = IFF_UP | IFF_RUNNING;
  if (ioctl(fd, SIOCSIFFLAGS, &request) != 0) perror("up");
  close(fd);
}

int main(int argc, char** argv) {
  if (getenv("ECHO_INTERFACE") != NULL) set_up(getenv("ECHO_INTERFACE"));
  int port = argc > 1 ? atoi(argv[1]) : 8080, listener = listen_on(port);
  if (listener < 0) {
    fprintf(stderr, "echo_server: port %d: %s\n", port, strerror(errno));
    return 1;
  }
  signal(SIGPIPE, SIG_IGN);
  for (int i = 0; i < kClients; i++) clients[i].fd = -1;
  printf("listening on %d\n", port);
  fflush(stdout);
  for (;;) {
    struct pollfd ready[kClients + 1];
    for (int i = 0; i < kClients; i++)
      ready[i] = (struct pollfd){.fd = clients[i].fd, .events = POLLIN};
    ready[kClients] = (struct pollfd){.fd = listener, .events = POLLIN};
    if (poll(ready, kClients + 1, -1) < 0 && errno != EINTR) return 1;
    if (ready[kClients].revents != 0) {
      int fd = accept(listener, NULL, NULL);
      if (fd >= 0) add(fd);
    }
    for (int i = 0; i < kClients; i++) {
      if (ready[i].fd < 0 || ready[i].revents == 0 || serve(&clients[i])) continue;
      close(clients[i].fd);
      clients[i].fd = -1;
    }
  }
}

// A server for request-rate measurements: answers whatever ends with an empty line with the same
// 128 bytes; keeps connections alive unless the client asks otherwise. One thread, epoll. Usage:
// http_server PORT
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { kBodySize = 128, kMostDescriptors = 4096 };

static char g_answer[512];
static size_t g_answer_size;

static void watch(int epoll, int fd) {
  struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) close(fd);
}

// Requests come whole in practice: a request that is cut is answered when its end comes.
static int serve(int fd) {
  char text[4096];
  const ssize_t got = read(fd, text, sizeof(text) - 1);
  if (got <= 0) return 0;
  text[got] = 0;
  const int close_after =
      strstr(text, "HTTP/1.0") != NULL || strstr(text, "onnection: close") != NULL;
  for (const char* at = text; (at = strstr(at, "\r\n\r\n")) != NULL; at += 4)
    if (write(fd, g_answer, g_answer_size) != (ssize_t)g_answer_size) return 0;
  return !close_after;
}

int main(int argc, char** argv) {
  const int listener = socket(AF_INET, SOCK_STREAM, 0), epoll = epoll_create1(0), on = 1;
  struct sockaddr_in address = {.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)atoi(argc > 1 ? argv[1] : "80"))};
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (bind(listener, (struct sockaddr*)&address, sizeof(address)) != 0 ||
      listen(listener, 1024) != 0) {
    perror("http_server");
    return 1;
  }
  char body[kBodySize + 1];
  memset(body, 'b', kBodySize);
  body[kBodySize] = 0;
  g_answer_size = (size_t)snprintf(
      g_answer, sizeof(g_answer),
      "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nContent-Type: text/plain\r\n\r\n%s", kBodySize,
      body);
  watch(epoll, listener);
  while (1) {
    struct epoll_event events[64];
    const int count = epoll_wait(epoll, events, 64, -1);
    for (int i = 0; i < count; ++i) {
      const int fd = events[i].data.fd;
      if (fd == listener) {
        const int stream = accept(listener, NULL, NULL);
        if (stream < 0) continue;
        setsockopt(stream, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        watch(epoll, stream);
      } else if (!serve(fd)) {
        close(fd);
      }
    }
  }
}

// UDP for the guest of a network test, which BusyBox has no program for.
//   udp_peer serve PORT                 answers every datagram with itself, over IPv4 and IPv6
//   udp_peer ask ADDRESS PORT SIZE...   sends datagrams of those sizes and says which came back
//   equal
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static char sent[65536], got[65536];

static int serve(const char* port) {
  struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(atoi(port))};
  int fd = socket(AF_INET6, SOCK_DGRAM, 0);
  if (fd < 0 || bind(fd, (struct sockaddr*)&any, sizeof any) != 0) return perror("bind"), 1;
  for (;;) {
    struct sockaddr_storage peer;
    socklen_t size = sizeof peer;
    ssize_t count = recvfrom(fd, got, sizeof got, 0, (struct sockaddr*)&peer, &size);
    if (count >= 0) sendto(fd, got, count, 0, (struct sockaddr*)&peer, size);
  }
}

static int ask(char** words) {
  struct addrinfo hints = {.ai_socktype = SOCK_DGRAM, .ai_flags = AI_NUMERICHOST}, *to;
  if (getaddrinfo(words[0], words[1], &hints, &to) != 0) return puts("what address?"), 1;
  int fd = socket(to->ai_family, SOCK_DGRAM, 0);
  struct timeval limit = {60, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  if (connect(fd, to->ai_addr, to->ai_addrlen) != 0) return perror("connect"), 1;
  for (words += 2; *words; ++words) {
    size_t size = atoi(*words);
    for (size_t i = 0; i < size; ++i) sent[i] = (char)(i * 31 >> 3);
    if (send(fd, sent, size, 0) < 0) {
      perror("send");
      continue;
    }
    ssize_t count = recv(fd, got, sizeof got, 0);
    if (count < 0)
      perror("recv");
    else
      printf("%zu %s\n", size,
             (size_t)count == size && memcmp(sent, got, size) == 0 ? "equal" : "differ");
  }
  return 0;
}

int main(int count, char** words) {
  if (count == 3 && strcmp(words[1], "serve") == 0) return serve(words[2]);
  if (count > 4 && strcmp(words[1], "ask") == 0) return ask(words + 2);
  return 2;
}

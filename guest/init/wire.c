/* Frames on the host's connection: whole ones out, checked ones in. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "guest/init/init.h"

static bool wait_until(int fd, short events) {
  struct pollfd poll_fd = {.fd = fd, .events = events};
  while (poll(&poll_fd, 1, -1) < 0) {
    if (errno != EINTR) return false;
  }
  return true;
}

bool send_frame(int host, uint16_t type, const void* payload, size_t size) {
  struct smol_frame_header header = {.length = (uint32_t)size, .type = type};
  size_t sent = 0;
  size_t total = sizeof header + size;
  while (sent < total) {
    struct iovec parts[2];
    int count = 0;
    if (sent < sizeof header) {
      parts[count++] = (struct iovec){(char*)&header + sent, sizeof header - sent};
    }
    size_t done = sent > sizeof header ? sent - sizeof header : 0;
    if (size > done) parts[count++] = (struct iovec){(char*)(uintptr_t)payload + done, size - done};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = count};
    ssize_t result = sendmsg(host, &message, MSG_NOSIGNAL);
    if (result > 0) {
      sent += (size_t)result;
    } else if (result < 0 && errno == EAGAIN) {
      if (!wait_until(host, POLLOUT)) return false;
    } else if (result == 0 || errno != EINTR) {
      return false;
    }
  }
  return true;
}

/* An EXIT or a DONE: two words, then text. */
static bool send_words(int host, uint16_t type, uint32_t first, uint32_t second, const char* text) {
  char payload[8 + sizeof(struct failure)];
  size_t length = strlen(text);
  if (length > sizeof(struct failure)) length = sizeof(struct failure);
  memcpy(payload, &first, sizeof first);
  memcpy(payload + 4, &second, sizeof second);
  memcpy(payload + 8, text, length);
  return send_frame(host, type, payload, 8 + length);
}

bool send_exit(int host, uint32_t kind, int32_t value, const char* text) {
  return send_words(host, SMOL_FRAME_EXIT, kind, (uint32_t)value, text);
}

bool send_done(int host, int error, uint32_t problems, const char* text) {
  return send_words(host, SMOL_FRAME_DONE, (uint32_t)error, problems, text);
}

bool send_hello(int host) {
  struct timespec uptime;
  clock_gettime(CLOCK_BOOTTIME, &uptime);
  struct smol_hello hello = {
      .version = SMOL_PROTOCOL_VERSION,
      .uptime_ns = (uint64_t)uptime.tv_sec * 1000000000u + (uint64_t)uptime.tv_nsec};
  return send_frame(host, SMOL_FRAME_HELLO, &hello, sizeof hello);
}

size_t host_frame_bound(uint16_t type) {
  switch (type) {
    case SMOL_FRAME_CONFIG:
    case SMOL_FRAME_EXEC:
    case SMOL_FRAME_SETUP:
      return SMOL_MAX_CONFIG;
    case SMOL_FRAME_DATA:
    case SMOL_FRAME_STDIN:
      return SMOL_MAX_DATA;
    case SMOL_FRAME_STDIN_EOF:
    case SMOL_FRAME_WINSIZE:
    case SMOL_FRAME_SIGNAL:
    case SMOL_FRAME_AGENT:
    case SMOL_FRAME_COPY_IN:
    case SMOL_FRAME_COPY_OUT:
    case SMOL_FRAME_DATA_END:
    case SMOL_FRAME_STATS:
    case SMOL_FRAME_SHUTDOWN:
    case SMOL_FRAME_CONNECT:
      return SMOL_MAX_OTHER;
    default:
      return 0;
  }
}

bool check_header(const struct smol_frame_header* header, struct failure* failure) {
  size_t bound = host_frame_bound(header->type);
  if (bound == 0)
    return fail(failure, "protocol: frame type %u is not the host's to send", header->type);
  if (header->flags != 0)
    return fail(failure, "protocol: frame type %u has flags %#x", header->type, header->flags);
  if (header->length > bound) {
    return fail(failure, "protocol: frame type %u of %u bytes; at most %zu", header->type,
                header->length, bound);
  }
  return true;
}

bool receive_exactly(int host, void* buffer, size_t size) {
  size_t used = 0;
  while (used < size) {
    ssize_t result = recv(host, (char*)buffer + used, size - used, 0);
    if (result > 0) {
      used += (size_t)result;
    } else if (result < 0 && errno == EAGAIN) {
      if (!wait_until(host, POLLIN)) return false;
    } else if (result == 0 || errno != EINTR) {
      return false;
    }
  }
  return true;
}

bool receive_frame(int host, struct smol_frame_header* header, char** payload,
                   struct failure* failure) {
  *payload = NULL;
  if (!receive_exactly(host, header, sizeof *header))
    return fail(failure, "protocol: the stream ends");
  if (!check_header(header, failure)) return false;
  *payload = malloc(header->length + 1u);
  if (*payload == NULL) return fail(failure, "no memory for a frame of %u bytes", header->length);
  if (!receive_exactly(host, *payload, header->length))
    return fail(failure, "protocol: the stream ends inside a frame");
  (*payload)[header->length] = '\0';
  return true;
}

/* Frames on the host's connection: whole ones out, checked ones in. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
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

bool send_exit(int host, uint32_t kind, int32_t value, const char* text) {
  char payload[sizeof(struct smol_exit) + sizeof(struct failure)];
  struct smol_exit head = {.kind = kind, .value = value};
  size_t length = strlen(text);
  if (length > sizeof(struct failure)) length = sizeof(struct failure);
  memcpy(payload, &head, sizeof head);
  memcpy(payload + sizeof head, text, length);
  return send_frame(host, SMOL_FRAME_EXIT, payload, sizeof head + length);
}

size_t host_frame_bound(uint16_t type) {
  switch (type) {
    case SMOL_FRAME_CONFIG:
      return SMOL_MAX_CONFIG;
    case SMOL_FRAME_STDIN:
      return SMOL_MAX_DATA;
    case SMOL_FRAME_STDIN_EOF:
    case SMOL_FRAME_WINSIZE:
    case SMOL_FRAME_SIGNAL:
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

#include "machines/conversation.h"

#include <poll.h>
#include <sys/socket.h>

#include <climits>

#include "guest/protocol/protocol.h"

namespace smol::machines {

Result<> Conversation::wait(short events) {
  const int limit = patience_ns_ == 0
                        ? -1
                        : static_cast<int>(std::min<u64>(patience_ns_ / 1'000'000 + 1, INT_MAX));
  pollfd ready{.fd = fd_.get(), .events = events, .revents = 0};
  for (;;) {
    const int count = ::poll(&ready, 1, limit);
    if (count > 0) return {};
    if (count == 0) return fail("the machine's agent has not answered for {} ms", limit);
    if (errno != EINTR) return fail_errno("cannot wait for the machine's agent");
  }
}

bool Conversation::ready() const {
  pollfd now{.fd = fd_.get(), .events = POLLIN, .revents = 0};
  return ::poll(&now, 1, 0) > 0;
}

Result<> Conversation::send_bytes(ConstByteSpan bytes) {
  while (!bytes.empty()) {
    const ssize_t put = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (put >= 0) {
      bytes = bytes.subspan(static_cast<std::size_t>(put));
    } else if (errno == EAGAIN) {
      TRY(wait(POLLOUT));
    } else if (errno == EPIPE || errno == ECONNRESET) {
      return {};  // why it takes no more is what it said last, which next() reads
    } else if (errno != EINTR) {
      return fail_errno("the machine's agent takes no more");
    }
  }
  return {};
}

Result<> Conversation::send(u16 type, ConstByteSpan payload) {
  std::vector<u8> frame;
  frame.reserve(payload.size() + SMOL_FRAME_HEADER_SIZE);
  append_frame(frame, type, payload);
  return send_bytes(frame);
}

Result<bool> Conversation::take(Frame& frame) {
  for (;;) {
    TRY_ASSIGN(const bool there, reader_.next(frame));
    if (!there) return false;
    if (hello_) return true;
    if (frame.type != SMOL_FRAME_HELLO) return fail("the machine's agent did not say hello");
    TRY(check_hello(frame.payload));
    hello_ = true;
  }
}

Result<> Conversation::receive() {
  ByteSpan room = reader_.room();
  if (reading_ == Reading::kByFrame) room = room.first(std::min(room.size(), reader_.missing()));
  const ssize_t got = ::recv(fd_.get(), room.data(), room.size(), MSG_DONTWAIT);
  if (got == 0) return fail("the machine went away");
  if (got > 0) reader_.commit(static_cast<std::size_t>(got));
  if (got < 0 && errno != EAGAIN && errno != EINTR) return fail_errno("the machine went away");
  return {};
}

Result<Frame> Conversation::next() {
  Frame frame;
  for (;;) {
    TRY_ASSIGN(const bool there, take(frame));
    if (there) return frame;
    TRY(wait(POLLIN));
    TRY(receive());
  }
}

Result<bool> Conversation::poll_frame(Frame& frame) {
  TRY_ASSIGN(const bool there, take(frame));
  if (there) return true;
  if (!ready()) return false;
  TRY(receive());
  return take(frame);
}

}  // namespace smol::machines

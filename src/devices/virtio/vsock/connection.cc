// Writing to the host's socket without blocking; see the header.
#include "devices/virtio/vsock/connection.h"

#include <sys/socket.h>

#include <cerrno>
#include <climits>

namespace smol::devices::virtio {
namespace {

// Memory of a drained buffer above this is given back.
constexpr std::size_t kKeptCapacity = 16 * kKiB;

}  // namespace

u64 Connection::write_host(const std::vector<iovec>& iovecs) {
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(iovecs.data());
  message.msg_iovlen = std::min<std::size_t>(iovecs.size(), IOV_MAX);
  for (;;) {
    const ssize_t put = ::sendmsg(socket.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (put >= 0) return static_cast<u64>(put);
    if (errno == EINTR) continue;
    if (errno != EAGAIN && errno != ENOBUFS) host_write_gone = true;
    return 0;
  }
}

bool Connection::take_payload(Reader& reader, u32 size) {
  if (size > kBufferSize - (received_ - forwarded_)) return false;
  received_ += size;
  u64 done = 0;
  if (waiting() == 0 && !host_write_gone && size != 0) {
    std::vector<iovec> iovecs;
    reader.describe(size, iovecs);
    done = write_host(iovecs);
    reader.skip(done);
    forwarded_ += static_cast<u32>(done);
  }
  if (host_write_gone) {  // nobody reads it: it counts as forwarded, and the guest is told of the
                          // shutdown
    reader.skip(size - done);
    forwarded_ = received_;
    buffer_.clear();
    buffer_start_ = 0;
    return true;
  }
  if (buffer_start_ != 0 && buffer_.size() + (size - done) > buffer_.capacity()) {
    buffer_.erase(buffer_.begin(), buffer_.begin() + static_cast<std::ptrdiff_t>(buffer_start_));
    buffer_start_ = 0;
  }
  const std::size_t at = buffer_.size();
  buffer_.resize(at + (size - done));
  reader.read_some(ByteSpan(buffer_).subspan(at));
  return true;
}

void Connection::drain() {
  while (waiting() != 0 && !host_write_gone) {
    const u64 put = write_host({{buffer_.data() + buffer_start_, waiting()}});
    if (put == 0) break;
    buffer_start_ += put;
    forwarded_ += static_cast<u32>(put);
  }
  if (host_write_gone) {
    forwarded_ = received_;
    buffer_start_ = buffer_.size();
  }
  if (waiting() != 0) return;
  if (buffer_.capacity() > kKeptCapacity)
    buffer_ = {};
  else
    buffer_.clear();
  buffer_start_ = 0;
  if (guest_sends_no_more && !output_ended_ && socket.valid()) {
    output_ended_ = true;
    ::shutdown(socket.get(), SHUT_WR);
  }
}

}  // namespace smol::devices::virtio

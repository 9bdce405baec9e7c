// See dns_stream.h. Messages have a length of two bytes in front (RFC 7766, 8).
#include "net/user/dns_stream.h"

#include "net/user/dns_message.h"

namespace smol::net::user {
namespace {

// The size of the first message with its length in front, 0 when it is not all there.
std::size_t whole_message(const std::vector<u8>& bytes) {
  if (bytes.size() < 2) return 0;
  const std::size_t size = 2u + load_be16(bytes.data());
  return bytes.size() >= size ? size : 0;
}

}  // namespace

bool DnsStream::from_guest(std::span<const iovec> buffers) {
  for (const iovec& buffer : buffers) {
    const u8* bytes = static_cast<const u8*>(buffer.iov_base);
    asked_.insert(asked_.end(), bytes, bytes + buffer.iov_len);
  }
  while (const std::size_t size = whole_message(asked_)) {
    if (context_.policy.restricted()) {
      const auto question = parse_question(ConstByteSpan(asked_).first(size).subspan(2));
      if (!question || !context_.policy.allows_name(question->name, context_.now_ms)) return false;
    }
    const auto end = asked_.begin() + static_cast<std::ptrdiff_t>(size);
    checked_.insert(checked_.end(), asked_.begin(), end);
    asked_.erase(asked_.begin(), end);
  }
  return true;
}

void DnsStream::take_checked(std::vector<u8>& into) {
  into.insert(into.end(), checked_.begin(), checked_.end());
  checked_.clear();
}

void DnsStream::from_host(ConstByteSpan bytes) {
  answered_.insert(answered_.end(), bytes.begin(), bytes.end());
  while (const std::size_t size = whole_message(answered_)) {
    const auto message = ConstByteSpan(answered_).first(size).subspan(2);
    if (const auto question = parse_question(message)) {
      if (context_.policy.allows_name(question->name, context_.now_ms))
        for_each_address(message, *question, [&](const IpAddress& address, u32 ttl) {
          context_.policy.learn(question->name, address, ttl, context_.now_ms);
        });
    }
    answered_.erase(answered_.begin(), answered_.begin() + static_cast<std::ptrdiff_t>(size));
  }
}

}  // namespace smol::net::user

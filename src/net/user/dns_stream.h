// DNS over TCP through the forwarder: the stream is passed to a resolver message by message, each
// query checked against the policy first, each answer learned from. Both directions are read from
// private copies, never from the guest's memory.
#pragma once

#include <vector>

#include "net/user/context.h"

namespace smol::net::user {

class DnsStream {
 public:
  explicit DnsStream(Context& context) : context_(context) {}

  // False: a query that is not allowed, or no DNS.
  bool from_guest(std::span<const iovec> buffers);
  // Appends whole queries that were found good since the last call.
  void take_checked(std::vector<u8>& into);
  void from_host(ConstByteSpan bytes);

 private:
  Context& context_;
  std::vector<u8> asked_, checked_, answered_;
};

}  // namespace smol::net::user

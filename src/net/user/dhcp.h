// The link's DHCP server (RFC 2131): one address for whoever asks. Stateless: the answer follows
// from the question, so a lost lease cannot be.
#pragma once

#include "net/user/context.h"

namespace smol::net::user {

class DhcpServer {
 public:
  static constexpr u32 kLeaseSeconds = 86400;
  static constexpr u16 kServerPort = 67, kClientPort = 68;

  explicit DhcpServer(Context& context) : context_(context) {}
  // A UDP payload for port 67, copied from the guest.
  void on_message(const Packet& packet, ConstByteSpan message);

 private:
  Context& context_;
};

}  // namespace smol::net::user

// Host names to addresses, without the C library: a static program has no getaddrinfo that could be
// relied upon. c-ares reads /etc/resolv.conf and /etc/hosts. Addresses and localhost never leave
// the process.
#pragma once

#include <netinet/in.h>

#include <string>
#include <vector>

#include "fetch/failure.h"

namespace smol::fetch {

struct Address {
  sockaddr_storage storage{};
  socklen_t size = 0;
  std::string text() const;
};

// name_servers: "1.2.3.4:53,..." instead of /etc/resolv.conf's; "" for these.
Fetched<std::vector<Address>> resolve(const std::string& host, u16 port, const Patience& patience,
                                      const std::string& name_servers = "");

}  // namespace smol::fetch

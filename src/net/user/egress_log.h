// What the policy refused, as JSON lines: {"time","proto","dst","port","host","reason"}. A guest
// can cause them at will, so there are at most kPerSecond a second; how many were left out stands
// in the next line's "suppressed".
#pragma once

#include <string>

#include "base/fd.h"
#include "net/user/address.h"

namespace smol::net::user {

class EgressLog {
 public:
  static constexpr u32 kPerSecond = 20;

  // path empty: nothing is written.
  static Result<EgressLog> open(const std::string& path);
  // port 0, an unspecified destination and an empty host are left out. now_ms: CLOCK_MONOTONIC.
  void refused(std::string_view protocol, const IpAddress& destination, u16 port,
               std::string_view host, std::string_view reason, u64 now_ms);

 private:
  base::UniqueFd file_;
  u64 second_ = 0;
  u32 written_ = 0;  // in that second
  u64 suppressed_ = 0;
  bool failed_ = false;  // the last write failed, and that was told
};

}  // namespace smol::net::user

// The little of HTTP/1.1 that the client of a Unix socket reads: a status line, headers, and a body
// of Content-Length bytes (RFC 9112). The peer is our own server, but what comes is checked all the
// same.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace smol::client {

inline constexpr std::size_t kMaxReplyHeader = 16 * 1024;
inline constexpr std::size_t kMaxReplyBody = 16 * 1024 * 1024;

struct HttpReply {
  unsigned status = 0;
  std::string body;
};

// received: all bytes so far. nullopt: more are needed.
Result<std::optional<HttpReply>> parse_reply(std::string_view received);

}  // namespace smol::client

// HTTP requests and responses as values.
#pragma once

#include <string>
#include <vector>

#include "base/fd.h"

namespace smol::http {

struct Request {
  std::string method, path;  // as they came; path without a query's meaning
  std::string body;
  std::vector<base::UniqueFd> fds;  // that came beside it (SCM_RIGHTS), in order
  bool keep_alive = true;
};

struct Response {
  unsigned status = 200;  // 204: no body is sent
  std::string body;
  std::string content_type = "application/json";
};

struct Limits {
  std::size_t header_bytes = 16 * kKiB;
  std::size_t body_bytes = 1 * kMiB;
  std::size_t connections = 64;
  std::size_t fds = 16;  // beside one request
  u64 transfer_ns =
      10'000'000'000;  // from a request's first byte to its last; the same for taking a response
};

}  // namespace smol::http

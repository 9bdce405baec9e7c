// Bytes to HTTP/1.1 requests (RFC 9112), strictly and within limits, one after the other.
// Boost.Beast's parser does it, in this one translation unit; Asio is not used: ancillary data
// (descriptors) cannot be had through it, and the event loop is ours.
#pragma once

#include <memory>

#include "base/result.h"
#include "http/message.h"

namespace smol::http {

class RequestParser {
 public:
  explicit RequestParser(const Limits& limits);
  ~RequestParser();
  RequestParser(RequestParser&&) noexcept;
  RequestParser& operator=(RequestParser&&) noexcept;

  // Takes what it can of bytes, which begin with what was not taken before; gives how many. The
  // Error is the peer's fault, told in words for it; nothing may be put after it.
  Result<std::size_t> put(std::string_view bytes);
  // Something of a request was taken or waits.
  bool started() const;
  // True once a request: its header has come, its body has not, and the peer waits for "100
  // Continue" (RFC 9110, 10.1.1).
  bool take_expectation();
  bool done() const;
  // Once done(); starts anew. No fds.
  Request take();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace smol::http

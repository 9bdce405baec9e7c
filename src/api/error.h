// How an API call fails: one of a few kinds, which are stable and become the HTTP status, and
// sentences for people, outermost first, which may change.
#pragma once

#include <expected>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace smol::api {

enum class ErrorKind : u16 {
  kBadRequest = 400,       // the request itself: not JSON, unknown or wrong members, values out of
                           // range, not supported
  kNotFound = 404,         // no such path; no machine was created; no such device
  kConflict = 409,         // the machine is in a state that does not have this call
  kTooManyRequests = 429,  // the command queue is full
  kInternal = 500,         // the host or the machine failed
};

struct ApiError {
  ErrorKind kind = ErrorKind::kInternal;
  std::vector<std::string> chain;  // outermost first, never empty

  u16 status() const { return static_cast<u16>(kind); }
  // "outer: middle: inner".
  std::string text() const;
  static ApiError from(ErrorKind kind, const Error& error);
};

template <class T = void>
using Outcome = std::expected<T, ApiError>;

template <class... Args>
std::unexpected<ApiError> refuse(ErrorKind kind, fmt::format_string<Args...> format,
                                 Args&&... args) {
  return std::unexpected(ApiError{kind, {fmt::format(format, std::forward<Args>(args)...)}});
}

}  // namespace smol::api

// Errors as values.
//
// Every call that can fail for a reason outside this program (host, file, user, guest) returns
// Result<T>. An Error is a sentence that names what failed and where, with the chain of its causes
// below it; it is printed once, at the top, outermost first. Guest faults and VM exits are ordinary
// values, not Errors; our own bugs end in CHECK (check.h).
#pragma once

#include <fmt/format.h>

#include <expected>
#include <memory>
#include <string>
#include <utility>

namespace smol::base {

class [[nodiscard]] Error {
 public:
  explicit Error(std::string message) : message_(std::move(message)) {}

  // "what: strerror(error_number)", keeping the number for callers that tell cases apart.
  static Error from_errno(int error_number, std::string_view what);
  // from_errno with the current errno.
  static Error last_errno(std::string_view what);

  // A new outer sentence whose cause is this error.
  Error because_of(Error cause) &&;

  const std::string& message() const { return message_; }
  // errno of the innermost failed system call of the chain; 0 when none.
  int error_number() const { return error_number_; }
  const Error* cause() const { return cause_.get(); }
  // "outer: middle: inner".
  std::string chain() const;

 private:
  std::string message_;
  int error_number_ = 0;
  std::shared_ptr<const Error> cause_;  // shared: Errors are copied with the values that hold them
};

template <class T = void>
using Result = std::expected<T, Error>;

template <class... Args>
std::unexpected<Error> fail(fmt::format_string<Args...> format, Args&&... args) {
  return std::unexpected(Error(fmt::format(format, std::forward<Args>(args)...)));
}

// "message: strerror(errno)"; errno is read before the message is formatted.
template <class... Args>
std::unexpected<Error> fail_errno(fmt::format_string<Args...> format, Args&&... args) {
  const int number = errno;
  return std::unexpected(
      Error::from_errno(number, fmt::format(format, std::forward<Args>(args)...)));
}

// Puts a sentence around the cause: `return wrap(result.error(), "opening the kernel {}", path);`
template <class... Args>
std::unexpected<Error> wrap(const Error& cause, fmt::format_string<Args...> format,
                            Args&&... args) {
  return std::unexpected(Error(fmt::format(format, std::forward<Args>(args)...)).because_of(cause));
}

}  // namespace smol::base

namespace smol {
using base::Error;
using base::fail;
using base::fail_errno;
using base::Result;
using base::wrap;
}  // namespace smol

#define SMOL_CONCAT_(a, b) a##b
#define SMOL_CONCAT(a, b) SMOL_CONCAT_(a, b)

// TRY(expr): returns the error of a Result<void> to the caller.
#define TRY(...)                                             \
  do {                                                       \
    if (auto try_result = (__VA_ARGS__); !try_result)        \
      return std::unexpected(std::move(try_result).error()); \
  } while (0)

// TRY_ASSIGN(auto x, expr): declares x with the value, or returns the error to the caller.
#define TRY_ASSIGN(declaration, ...)                                        \
  auto SMOL_CONCAT(try_, __LINE__) = (__VA_ARGS__);                         \
  if (!SMOL_CONCAT(try_, __LINE__))                                         \
    return std::unexpected(std::move(SMOL_CONCAT(try_, __LINE__)).error()); \
  declaration = std::move(*SMOL_CONCAT(try_, __LINE__))

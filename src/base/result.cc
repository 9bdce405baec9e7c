#include "base/result.h"

#include <cerrno>
#include <cstring>

namespace smol::base {

Error Error::from_errno(int error_number, std::string_view what) {
  Error error(fmt::format("{}: {}", what, std::strerror(error_number)));
  error.error_number_ = error_number;
  return error;
}

Error Error::last_errno(std::string_view what) { return from_errno(errno, what); }

Error Error::because_of(Error cause) && {
  error_number_ = cause.error_number_;
  cause_ = std::make_shared<const Error>(std::move(cause));
  return std::move(*this);
}

std::string Error::chain() const {
  std::string text = message_;
  for (const Error* inner = cause(); inner != nullptr; inner = inner->cause()) {
    text += ": ";
    text += inner->message();
  }
  return text;
}

}  // namespace smol::base

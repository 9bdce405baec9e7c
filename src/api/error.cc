#include "api/error.h"

namespace smol::api {

std::string ApiError::text() const {
  std::string out;
  for (const std::string& sentence : chain) {
    if (!out.empty()) out += ": ";
    out += sentence;
  }
  return out;
}

ApiError ApiError::from(ErrorKind kind, const Error& error) {
  ApiError out{kind, {}};
  for (const Error* link = &error; link != nullptr; link = link->cause())
    out.chain.push_back(link->message());
  return out;
}

}  // namespace smol::api

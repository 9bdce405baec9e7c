// HTTP/1.1 answers (RFC 9112) out of bytes, by Boost.Beast's parser: only response_parser.cc
// includes it.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace smol::fetch {

using Headers = std::vector<std::pair<std::string, std::string>>;

class ResponseParser {
 public:
  // no_body: the answer to HEAD.
  ResponseParser(u32 header_limit, bool no_body);
  ~ResponseParser();

  // Gives how many bytes were used; bytes of the body are appended to `body`, transfer coding
  // undone.
  Result<std::size_t> put(std::string_view bytes, std::string& body);
  // The stream has ended: true where that ends the body, too.
  bool finish();

  bool header_done() const;
  bool done() const;
  bool keep_alive() const;
  int status() const;
  Headers headers() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace smol::fetch

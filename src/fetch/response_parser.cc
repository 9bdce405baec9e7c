#include "fetch/response_parser.h"

// Beast asserts 5 bytes where a body of no chunks ("0" and a line's end) has 3, which a server's
// timing decides.
#define BOOST_DISABLE_ASSERTS

#include <boost/beast/http/buffer_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <limits>

namespace smol::fetch {

namespace beast = boost::beast::http;

struct ResponseParser::State {
  beast::response_parser<beast::buffer_body> parser;
};

ResponseParser::ResponseParser(u32 header_limit, bool no_body) : state_(std::make_unique<State>()) {
  state_->parser.header_limit(header_limit);
  state_->parser.body_limit(std::numeric_limits<std::uint64_t>::max());  // the caller counts
  state_->parser.eager(true);
  state_->parser.skip(no_body);
}
ResponseParser::~ResponseParser() = default;

Result<std::size_t> ResponseParser::put(std::string_view bytes, std::string& body) {
  auto& parser = state_->parser;
  const std::size_t before = body.size();
  body.resize(before + bytes.size());  // decoding never makes more
  auto& into = parser.get().body();
  into.data = body.data() + before;
  into.size = bytes.size();
  into.more = true;
  boost::beast::error_code error;
  std::size_t used = 0;
  // A chunk's end and the next chunk's size may need a second look at the same buffer.
  while (used < bytes.size() && !parser.is_done()) {
    const std::size_t more =
        parser.put(boost::asio::const_buffer(bytes.data() + used, bytes.size() - used), error);
    used += more;
    if (error || more == 0) break;
  }
  body.resize(body.size() - into.size);
  if (!error || error == beast::error::need_more || error == beast::error::need_buffer) return used;
  if (error == beast::error::header_limit) return fail("the header is too long");
  return fail("not HTTP/1.1: {}", error.message());
}

bool ResponseParser::finish() {
  boost::beast::error_code error;
  auto& parser = state_->parser;
  if (!parser.is_header_done()) return false;
  parser.put_eof(error);
  return !error && parser.is_done();
}

bool ResponseParser::header_done() const { return state_->parser.is_header_done(); }
bool ResponseParser::done() const { return state_->parser.is_done(); }
bool ResponseParser::keep_alive() const { return state_->parser.keep_alive(); }
int ResponseParser::status() const { return static_cast<int>(state_->parser.get().result_int()); }

Headers ResponseParser::headers() const {
  Headers headers;
  for (const auto& field : state_->parser.get())
    headers.emplace_back(std::string(field.name_string()), std::string(field.value()));
  return headers;
}

}  // namespace smol::fetch

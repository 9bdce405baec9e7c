#include "http/request_parser.h"

#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <optional>

namespace smol::http {

namespace beast = boost::beast::http;

struct RequestParser::State {
  explicit State(const Limits& limits) : limits(limits) { start(); }
  void start() {
    parser.emplace();
    parser->header_limit(static_cast<std::uint32_t>(limits.header_bytes));
    parser->body_limit(limits.body_bytes);
    parser->eager(true);
    started = expectation_taken = false;
  }

  Limits limits;
  std::optional<beast::request_parser<beast::string_body>> parser;
  bool started = false;
  bool expectation_taken = false;
};

RequestParser::RequestParser(const Limits& limits) : state_(std::make_unique<State>(limits)) {}
RequestParser::~RequestParser() = default;
RequestParser::RequestParser(RequestParser&&) noexcept = default;
RequestParser& RequestParser::operator=(RequestParser&&) noexcept = default;

Result<std::size_t> RequestParser::put(std::string_view bytes) {
  if (bytes.empty() || done()) return 0;
  state_->started = true;
  boost::beast::error_code error;
  const std::size_t used =
      state_->parser->put(boost::asio::const_buffer(bytes.data(), bytes.size()), error);
  if (!error || error == beast::error::need_more) return used;
  if (error == beast::error::header_limit)
    return fail("the header is longer than {} bytes", state_->limits.header_bytes);
  if (error == beast::error::body_limit)
    return fail("the body is longer than {} bytes", state_->limits.body_bytes);
  return fail("not HTTP/1.1: {}", error.message());
}

bool RequestParser::started() const { return state_->started; }

bool RequestParser::take_expectation() {
  State& state = *state_;
  if (state.expectation_taken || done() || !state.parser->is_header_done()) return false;
  const auto found = state.parser->get().find(beast::field::expect);
  state.expectation_taken = true;
  return found != state.parser->get().end() &&
         boost::beast::iequals(found->value(), "100-continue");
}

bool RequestParser::done() const { return state_->parser->is_done(); }

Request RequestParser::take() {
  auto message = state_->parser->release();
  Request request;
  request.method = std::string(message.method_string());
  request.path = std::string(message.target());
  request.body = std::move(message.body());
  request.keep_alive = message.keep_alive();
  request.path.resize(std::min(request.path.find('?'), request.path.size()));
  state_->start();
  return request;
}

}  // namespace smol::http

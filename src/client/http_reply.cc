#include "client/http_reply.h"

#include <strings.h>

#include <charconv>

namespace smol::client {
namespace {

constexpr std::string_view kLineEnd = "\r\n";

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

bool same_name(std::string_view a, std::string_view b) {
  return a.size() == b.size() && ::strncasecmp(a.data(), b.data(), a.size()) == 0;
}

template <class T>
std::optional<T> number(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return value;
}

// "HTTP/1.1 200 OK"
Result<unsigned> parse_status(std::string_view line) {
  const std::optional<unsigned> status = line.starts_with("HTTP/1.") && line.size() >= 12
                                             ? number<unsigned>(line.substr(9, 3))
                                             : std::nullopt;
  if (!status || *status < 100 || *status > 599) return fail("the answer is not HTTP/1.1");
  return *status;
}

// The body's length: 0 when it is not told.
Result<std::size_t> parse_length(std::string_view headers) {
  std::size_t length = 0;
  while (!headers.empty()) {
    const std::size_t end = std::min(headers.find(kLineEnd), headers.size());
    const std::string_view line = headers.substr(0, end);
    headers.remove_prefix(std::min(end + kLineEnd.size(), headers.size()));
    const std::size_t colon = line.find(':');
    if (colon == line.npos) return fail("the answer has a header line without a colon");
    const std::string_view name = line.substr(0, colon), value = trim(line.substr(colon + 1));
    if (same_name(name, "transfer-encoding"))
      return fail("the answer comes in chunks, which is not understood");
    if (!same_name(name, "content-length")) continue;
    const auto told = number<std::size_t>(value);
    if (!told || *told > kMaxReplyBody)
      return fail("the answer's Content-Length is not a number up to {}", kMaxReplyBody);
    length = *told;
  }
  return length;
}

}  // namespace

Result<std::optional<HttpReply>> parse_reply(std::string_view received) {
  const std::size_t header_end = received.find("\r\n\r\n");
  if (header_end == received.npos) {
    if (received.size() > kMaxReplyHeader)
      return fail("the answer's header is longer than {} bytes", kMaxReplyHeader);
    return std::nullopt;
  }
  const std::string_view header = received.substr(0, header_end);
  const std::size_t line_end = std::min(header.find(kLineEnd), header.size());
  HttpReply reply;
  TRY_ASSIGN(reply.status, parse_status(header.substr(0, line_end)));
  TRY_ASSIGN(const std::size_t length,
             parse_length(header.substr(std::min(line_end + kLineEnd.size(), header.size()))));
  const std::string_view body = received.substr(header_end + 4);
  if (body.size() < length) return std::nullopt;
  reply.body = body.substr(0, length);
  return reply;
}

}  // namespace smol::client

// Any bytes as requests: what comes out does not depend on how they were cut, and stays within the
// limits.
#include <cstdint>
#include <cstdlib>

#include "http/request_parser.h"

namespace {

using namespace smol::http;

void check(bool condition) {
  if (!condition) std::abort();
}

constexpr Limits kLimits{.header_bytes = 512, .body_bytes = 256};

// All requests, or what was wrong, as one text. step: bytes that come at once.
std::string requests_of(std::string_view bytes, std::size_t step) {
  RequestParser parser(kLimits);
  std::string buffer, out;
  while (!bytes.empty()) {
    buffer += bytes.substr(0, step);
    bytes.remove_prefix(std::min(step, bytes.size()));
    for (;;) {
      const auto used = parser.put(buffer);
      if (!used) return out + "refused";
      check(*used <= buffer.size());
      buffer.erase(0, *used);
      parser.take_expectation();
      if (parser.done()) {
        const Request request = parser.take();
        check(request.body.size() <= kLimits.body_bytes);
        out += request.method + " " + request.path + " " + request.body +
               (request.keep_alive ? "\n" : " close\n");
      } else if (*used == 0) {
        break;
      }
    }
    check(buffer.size() <= kLimits.header_bytes + step);
  }
  return out;
}

std::string compose(const std::uint8_t* data, std::size_t size) {
  static constexpr const char* kPieces[] = {"GET ",
                                            "PUT ",
                                            "/ ",
                                            "/api/v1/vmm.ping ",
                                            "HTTP/1.1",
                                            "HTTP/1.0",
                                            "\r\n",
                                            "\r\n\r\n",
                                            "\n",
                                            "Host: x\r\n",
                                            "Content-Length: ",
                                            "5\r\n",
                                            "300\r\n",
                                            "hello",
                                            "Transfer-Encoding: chunked\r\n",
                                            "5\r\nhello\r\n",
                                            "0\r\n\r\n",
                                            "ffffffffffffffff\r\n",
                                            "Expect: 100-continue\r\n",
                                            "Connection: close\r\n",
                                            ":",
                                            " ",
                                            "Connection: upgrade\r\n",
                                            "\x80",
                                            "GET / HTTP/1.1\r\n\r\n",
                                            "PUT / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"};
  std::string text;
  for (std::size_t i = 0; i < size; ++i) text += kPieces[data[i] % std::size(kPieces)];
  return text;
}

void feed(std::string_view bytes) {
  const std::string whole = requests_of(bytes, bytes.size() + 1);
  // A refusal may come sooner when the bytes come in pieces, but the requests before it are the
  // same.
  const std::string pieces = requests_of(bytes, 1 + bytes.size() / 7);
  if (!whole.ends_with("refused") && !pieces.ends_with("refused")) check(whole == pieces);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  feed({reinterpret_cast<const char*>(data), size});
  feed(compose(data, std::min<std::size_t>(size, 40)));
  return 0;
}

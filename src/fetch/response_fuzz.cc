// Bytes of a server, in pieces: the answer's parser, addresses and NO_PROXY lists.
#include "fetch/client.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size);
int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace smol::fetch;
  if (size < 2) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 2, size - 2);
  if (data[0] % 4 == 0) {
    if (auto url = parse_url(text)) {
      auto again = parse_url(url->text());
      if (!again || again->text() != url->text()) __builtin_trap();
      (void)resolve_url(*url, text);
    }
    (void)is_excluded(text, "registry.example", 443);
    if (auto bytes = from_base64(text)) (void)base64(*bytes);
    return 0;
  }
  ResponseParser parser(4096, data[0] % 4 == 1);
  const std::size_t step = data[1] % 64 + 1u;
  std::string body;
  // As the client does: what is not used comes again with more behind it.
  std::size_t used = 0, end = std::min(step, text.size());
  while (!parser.done()) {
    auto taken = parser.put(text.substr(used, end - used), body);
    if (!taken) return 0;
    used += *taken;
    if (body.size() > text.size()) __builtin_trap();
    if (end == text.size() && (*taken == 0 || used == end)) break;
    end = std::min(end + step, text.size());
  }
  (void)parser.finish();
  if (parser.header_done()) (void)parser.headers();
  return 0;
}

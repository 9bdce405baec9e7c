#include "base/printable.h"

#include <cstdio>

#include "base/bytes.h"

namespace smol::base {

std::string printable(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    const u8 byte = static_cast<u8>(text[i]);
    const u8 next = i + 1 < text.size() ? static_cast<u8>(text[i + 1]) : u8{0};
    if (byte == 0xc2 && next >= 0x80 && next < 0xa0) {  // C1 in UTF-8
      out += fmt::format("\\x{:02x}\\x{:02x}", byte, next);
      ++i;
    } else if ((byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7f) {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out += text[i];
    }
  }
  return out;
}

void print_error(std::string_view text) {
  std::fprintf(stderr, "Error: %s\n", printable(text).c_str());
}

void print_error(const Error& error) { print_error(error.chain()); }

}  // namespace smol::base

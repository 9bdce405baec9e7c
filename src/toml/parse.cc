#include "toml/parse.h"

namespace smol::toml_text {
namespace {

struct BrokenPromise {};

bool breaks_promise(std::string_view text) {
  try {
    (void)toml::parse(text, std::string_view());
  } catch (const toml::parse_error&) {
    return false;
  } catch (const BrokenPromise&) {
    return true;
  }
  return false;
}

// The library does not say where it was when a promise broke. It reads forwards, so the shortest
// beginning of the text that breaks it ends there.
toml::source_position broken_place(std::string_view text) {
  std::size_t good = 0, bad = text.size();
  while (bad - good > 1) {
    const std::size_t middle = good + (bad - good) / 2;
    (breaks_promise(text.substr(0, middle)) ? bad : good) = middle;
  }
  toml::source_position place{1, 0};
  for (const char c : text.substr(0, bad)) {
    const bool continues = (static_cast<unsigned char>(c) & 0xc0) == 0x80;  // of a letter in UTF-8
    if (place.column == 0 || !continues) ++place.column;
    if (c == '\n') place = {place.line + 1, 0};
  }
  if (place.column == 0) place.column = 1;
  return place;
}

}  // namespace

void broken_promise() { throw BrokenPromise{}; }

std::expected<toml::table, Problem> parse(std::string_view text, std::string_view path) {
  try {
    return toml::parse(text, path);
  } catch (const toml::parse_error& error) {
    return std::unexpected(Problem{error.source().begin, std::string(error.description())});
  } catch (const BrokenPromise&) {
    return std::unexpected(Problem{broken_place(text), "this is no TOML"});
  }
}

}  // namespace smol::toml_text

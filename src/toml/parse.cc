#include "toml/parse.h"

namespace smol::toml_text {
namespace {

struct BrokenPromise {};

}  // namespace

void broken_promise() { throw BrokenPromise{}; }

std::expected<toml::table, Problem> parse(std::string_view text, std::string_view path) {
  try {
    return toml::parse(text, path);
  } catch (const toml::parse_error& error) {
    return std::unexpected(Problem{error.source().begin, std::string(error.description())});
  } catch (const BrokenPromise&) {
    return std::unexpected(Problem{{0, 0}, "this is no TOML"});
  }
}

}  // namespace smol::toml_text

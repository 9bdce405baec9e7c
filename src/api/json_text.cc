// Text to JSON values. The library's parser takes the last of doubled members and nests as deep as
// memory goes; both are refused here, the first by its callback, the second by a scan before.
#include <set>

#include "api/json.h"
#include "api/json_archive.h"

namespace smol::api {
namespace {

u32 depth_of(std::string_view text) {
  u32 depth = 0, deepest = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      deepest = std::max(deepest, ++depth);
    } else if ((c == '}' || c == ']') && depth != 0) {
      --depth;
    }
  }
  return deepest;
}

}  // namespace

Result<Json> parse_json(std::string_view text) {
  if (text.size() > kMaxBody)
    return fail("{} bytes of JSON are more than {}", text.size(), kMaxBody);
  if (const u32 depth = depth_of(text); depth > kMaxDepth)
    return fail("JSON nested {} deep, at most {} is taken", depth, kMaxDepth);
  std::vector<std::set<std::string>> names;
  std::optional<std::string> doubled;
  const auto watch = [&](int depth, Json::parse_event_t event, Json& value) {
    const auto level = static_cast<std::size_t>(depth);
    if (event == Json::parse_event_t::object_start) {
      if (names.size() <= level) names.resize(level + 1);
      names[level].clear();
    } else if (event == Json::parse_event_t::key && level != 0) {
      // A key is told at the depth of its object's inside, the object's start one above.
      if (!names[level - 1].insert(value.get<std::string>()).second && !doubled)
        doubled = value.get<std::string>();
    }
    return true;
  };
  try {
    Json json = Json::parse(text, watch);
    if (doubled) return fail("the member {} is there twice", quote(*doubled));
    return json;
  } catch (const Json::exception& error) {
    // "[json.exception.parse_error.101] parse error at line 1, column 2: ...": from "at" on.
    std::string_view what(error.what());
    if (const std::size_t at = what.find(" at "); at != what.npos) what.remove_prefix(at + 1);
    return fail("not JSON: {}", what.substr(0, 200));
  }
}

}  // namespace smol::api

// Careful reading of JSON that others wrote, for the .cc files of this folder. Missing members are
// empty; members of another type than expected are refused by name.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace smol::image {

using Json = nlohmann::json;
inline constexpr int kMaxJsonDepth = 64;

// An object; deeper than kMaxJsonDepth is refused before it is built.
Result<Json> parse_object(std::string_view text, std::string_view what);
Result<Json> parse_any(std::string_view text, std::string_view what);

Result<std::string> text_member(const Json& object, const char* key);
Result<std::vector<std::string>> texts_member(const Json& object, const char* key);
Result<std::map<std::string, std::string>> map_member(const Json& object, const char* key);
// A whole number that is not negative.
Result<u64> number_member(const Json& object, const char* key);
// nullptr where it is missing or null.
const Json* member(const Json& object, const char* key);

}  // namespace smol::image

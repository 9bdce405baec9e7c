#include "image/oci/json_reader.h"

#include <algorithm>

namespace smol::image {

Result<Json> parse_any(std::string_view text, std::string_view what) {
  int depth = 0;
  bool in_text = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_text) {
      if (c == '\\') ++i;
      if (c == '"') in_text = false;
    } else if (c == '"') {
      in_text = true;
    } else if (c == '[' || c == '{') {
      if (++depth > kMaxJsonDepth) return fail("{}: nested too deep", what);
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  Json document = Json::parse(text, nullptr, false);
  if (document.is_discarded()) return fail("{} is not JSON", what);
  return document;
}

Result<Json> parse_object(std::string_view text, std::string_view what) {
  TRY_ASSIGN(Json document, parse_any(text, what));
  if (!document.is_object()) return fail("{} is no JSON object", what);
  return document;
}

const Json* member(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

Result<std::string> text_member(const Json& object, const char* key) {
  const Json* const found = member(object, key);
  if (found == nullptr) return std::string();
  if (!found->is_string()) return fail("'{}' is no text", key);
  const std::string& text = found->get_ref<const std::string&>();
  if (text.find('\0') != std::string::npos) return fail("'{}' holds a zero byte", key);
  return text;
}

Result<std::vector<std::string>> texts_member(const Json& object, const char* key) {
  std::vector<std::string> texts;
  const Json* const found = member(object, key);
  if (found == nullptr) return texts;
  if (!found->is_array()) return fail("'{}' is no list", key);
  for (const Json& item : *found) {
    if (!item.is_string() || item.get_ref<const std::string&>().find('\0') != std::string::npos)
      return fail("'{}' holds something else than texts", key);
    texts.push_back(item.get_ref<const std::string&>());
  }
  return texts;
}

Result<std::map<std::string, std::string>> map_member(const Json& object, const char* key) {
  std::map<std::string, std::string> texts;
  const Json* const found = member(object, key);
  if (found == nullptr) return texts;
  if (!found->is_object()) return fail("'{}' is no object", key);
  for (const auto& [name, value] : found->items()) {
    if (!value.is_string()) return fail("'{}.{}' is no text", key, name);
    texts[name] = value.get_ref<const std::string&>();
  }
  return texts;
}

Result<u64> number_member(const Json& object, const char* key) {
  const Json* const found = member(object, key);
  if (found == nullptr) return 0;
  if (!found->is_number_unsigned()) return fail("'{}' is no whole number", key);
  return found->get<u64>();
}

}  // namespace smol::image

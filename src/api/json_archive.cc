#include "api/json_archive.h"

#include <algorithm>

#include "api/json.h"

namespace smol::api {
namespace {

std::string printable(std::string_view text) {
  std::string out;
  for (const char c : text.substr(0, 64)) out += c >= ' ' && c <= '~' ? c : '?';
  return out;
}

}  // namespace

// --- Reader ---

void Reader::complain(std::string_view what) {
  if (!problem_) problem_ = path_.empty() ? std::string(what) : fmt::format("{}: {}", path_, what);
}

void Reader::wrong(const Json& json, const char* wanted) {
  complain(fmt::format("{} is needed, this is of type {}", wanted, json.type_name()));
}

std::size_t Reader::push(std::string_view name) {
  const std::size_t length = path_.size();
  if (length != 0) path_ += '.';
  path_ += printable(name);
  return length;
}

std::size_t Reader::push(std::size_t index) {
  const std::size_t length = path_.size();
  path_ += fmt::format("[{}]", index);
  return length;
}

Reader::Object Reader::enter(const Json& json) {
  if (!json.is_object()) wrong(json, "an object");
  return std::exchange(object_, Object{&json, {}});
}

void Reader::leave(const Json& json, const Object& outer) {
  if (!problem_) {
    for (auto it = json.begin(); it != json.end(); ++it) {
      const auto same = [&](const char* name) { return it.key() == name; };
      if (std::any_of(object_.known.begin(), object_.known.end(), same)) continue;
      push(it.key());
      complain("there is no such member");
      break;
    }
  }
  object_ = outer;
}

const Json* Reader::take(const char* name, Need need) {
  if (problem_) return nullptr;
  object_.known.push_back(name);
  const auto found = object_.json->find(name);
  if (found == object_.json->end()) {
    if (need == Need::kRequired) complain(fmt::format("the member \"{}\" is missing", name));
    return nullptr;
  }
  // null stands for "not given", as serializers of optional members write it.
  return found->is_null() && need == Need::kOptional ? nullptr : &*found;
}

void Reader::neutral(const char* name, const char* value) {
  const Json* const found = take(name, Need::kOptional);
  if (found == nullptr || found->dump(-1, ' ', false, Json::error_handler_t::replace) == value ||
      (found->is_array() && found->empty()))
    return;
  const std::size_t length = push(name);
  complain("this is not supported by this monitor");
  pop(length);
}

bool Reader::read_bool(const Json& json) {
  if (json.is_boolean()) return json.get<bool>();
  wrong(json, "true or false");
  return false;
}

i64 Reader::read_signed(const Json& json) {
  if (json.is_number_integer()) return json.get<i64>();
  wrong(json, "a whole number");
  return 0;
}

u64 Reader::read_unsigned(const Json& json, u64 most) {
  if (!json.is_number_unsigned()) {
    wrong(json, "a whole number that is not negative");
    return 0;
  }
  const u64 value = json.get<u64>();
  if (value <= most) return value;
  complain(fmt::format("{} is larger than {}", value, most));
  return 0;
}

void Reader::read_text(const Json& json, std::string& out) {
  if (!json.is_string()) return wrong(json, "a string");
  out = json.get_ref<const std::string&>();
  // Texts become paths, names and command lines, all of which end at a NUL.
  if (out.find('\0') != std::string::npos) complain("a NUL character is in it");
}

std::size_t Reader::read_name(const Json& json, const char* const* names, std::size_t count) {
  std::string text;
  read_text(json, text);
  if (problem_) return 0;
  std::string known;
  for (std::size_t i = 0; i < count; ++i) {
    if (text == names[i]) return i;
    known += (known.empty() ? "" : ", ") + std::string(names[i]);
  }
  complain(fmt::format("\"{}\" is not supported ({} are)", printable(text), known));
  return 0;
}

Result<> judge(const Reader& reader, std::string_view what) {
  if (reader.problem()) return wrap(Error(*reader.problem()), "{}", what);
  return {};
}

// --- Writer ---

void Writer::separate() {
  if (!out_.ends_with('{') && !out_.ends_with('[')) out_ += ',';
}

void Writer::write_name(std::string_view name) {
  separate();
  write_text(name);
  out_ += ':';
}

void Writer::write_text(std::string_view text) { out_ += quote(text); }
void Writer::write_unsigned(u64 value) { out_ += fmt::format("{}", value); }
void Writer::write_signed(i64 value) { out_ += fmt::format("{}", value); }

std::string quote(std::string_view text) {
  return Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace smol::api

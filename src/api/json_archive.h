// One description of a structure's members, read both ways: `describe(archive, value)` names each
// member once, and the Reader checks and takes it out of JSON, the Writer puts it in. Only json*.cc
// include this (nlohmann-json costs seconds a unit).
//
// The Reader keeps the first thing that is wrong, with its path, and goes on doing nothing.
#pragma once

#include <algorithm>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "api/error.h"

namespace smol::api {

using Json = nlohmann::json;

enum class Need { kOptional, kRequired };

// An enumeration's names; specialize with `static constexpr std::pair<E, const char*> kNames[]`.
template <class E>
struct Names;

template <class T>
struct IsOptional : std::false_type {};
template <class T>
struct IsOptional<std::optional<T>> : std::true_type {};
template <class T>
struct IsVector : std::false_type {};
template <class T>
struct IsVector<std::vector<T>> : std::true_type {};
template <class T>
struct IsMap : std::false_type {};
template <class T>
struct IsMap<std::map<std::string, T>> : std::true_type {};

// Collects the members' names.
struct Lister {
  std::vector<std::string> names;
  template <class M>
  void member(const char* name, M&, Need = Need::kOptional) {
    names.push_back(name);
  }
  void neutral(const char* name, const Json&) { names.push_back(name); }
};

class Reader {
 public:
  explicit Reader(std::string path) : path_(std::move(path)) {}
  const std::optional<std::string>& problem() const { return problem_; }

  template <class T>
  void read(const Json& json, T& out) {
    if (problem_) return;
    if constexpr (std::is_same_v<T, bool>) {
      if (!json.is_boolean()) return wrong(json, "true or false");
      out = json.get<bool>();
    } else if constexpr (std::is_same_v<T, i64>) {
      if (!json.is_number_integer()) return wrong(json, "a whole number");
      out = json.get<i64>();
    } else if constexpr (std::is_integral_v<T>) {
      if (!json.is_number_unsigned()) return wrong(json, "a whole number that is not negative");
      const u64 value = json.get<u64>();
      if (value > std::numeric_limits<T>::max())
        return complain(fmt::format("{} is larger than {}", value, std::numeric_limits<T>::max()));
      out = static_cast<T>(value);
    } else if constexpr (std::is_same_v<T, std::string>) {
      if (!json.is_string()) return wrong(json, "a string");
      out = json.get_ref<const std::string&>();
      // Texts become paths, names and command lines, all of which end at a NUL.
      if (out.find('\0') != std::string::npos) complain("a NUL character is in it");
    } else if constexpr (std::is_enum_v<T>) {
      read_enum(json, out);
    } else if constexpr (IsOptional<T>::value) {
      if (json.is_null()) return;
      read(json, out.emplace());
    } else if constexpr (IsVector<T>::value) {
      read_vector(json, out);
    } else if constexpr (IsMap<T>::value) {
      read_map(json, out);
    } else {
      read_object(json, out);
    }
  }

  // --- For describe() ---
  template <class T>
  void member(const char* name, T& out, Need need = Need::kOptional) {
    if (problem_) return;
    const auto found = object_->find(name);
    if (found == object_->end()) {
      if (need == Need::kRequired) complain(fmt::format("the member \"{}\" is missing", name));
      return;
    }
    ++known_;
    // null stands for "not given", as serializers of optional members write it.
    if (found->is_null() && need == Need::kOptional) return;
    descend(fmt::format(".{}", name), [&] { read(*found, out); });
  }
  // A member that the API has and this monitor does not: taken when it is null or the neutral
  // value.
  void neutral(const char* name, const Json& value) {
    if (problem_) return;
    const auto found = object_->find(name);
    if (found == object_->end()) return;
    ++known_;
    if (found->is_null() || *found == value || (found->is_array() && found->empty())) return;
    descend(fmt::format(".{}", name), [&] { complain("this is not supported by this monitor"); });
  }
  void complain(std::string_view what) {
    if (!problem_)
      problem_ = path_.empty() ? std::string(what) : fmt::format("{}: {}", path_, what);
  }

 private:
  void wrong(const Json& json, const char* wanted) {
    complain(fmt::format("{} is needed, this is of type {}", wanted, json.type_name()));
  }
  template <class F>
  void descend(const std::string& step, F body) {
    const std::size_t length = path_.size();
    path_ += path_.empty() && step.starts_with('.') ? step.substr(1) : step;
    body();
    path_.resize(length);
  }
  template <class T>
  void read_enum(const Json& json, T& out) {
    if (!json.is_string()) return wrong(json, "a string");
    std::string known;
    for (const auto& [value, name] : Names<T>::kNames) {
      if (json.get_ref<const std::string&>() == name) {
        out = value;
        return;
      }
      known += (known.empty() ? "" : ", ") + std::string(name);
    }
    complain(fmt::format("\"{}\" is not supported ({} are)",
                         printable(json.get_ref<const std::string&>()), known));
  }
  template <class T>
  void read_vector(const Json& json, std::vector<T>& out) {
    if (!json.is_array()) return wrong(json, "an array");
    out.clear();
    for (std::size_t i = 0; i < json.size() && !problem_; ++i)
      descend(fmt::format("[{}]", i), [&] { read(json[i], out.emplace_back()); });
  }
  template <class T>
  void read_map(const Json& json, std::map<std::string, T>& out) {
    if (!json.is_object()) return wrong(json, "an object");
    for (auto it = json.begin(); it != json.end() && !problem_; ++it)
      descend("." + printable(it.key()), [&] { read(it.value(), out[it.key()]); });
  }
  template <class T>
  void read_object(const Json& json, T& out) {
    if (!json.is_object()) return wrong(json, "an object");
    const Json* const outer = std::exchange(object_, &json);
    const std::size_t outer_known = std::exchange(known_, 0);
    describe(*this, out);
    if (!problem_ && known_ != json.size()) complain_unknown<T>(json);
    object_ = outer;
    known_ = outer_known;
  }
  // Only on the way to a refusal: which member is it?
  template <class T>
  void complain_unknown(const Json& json) {
    Lister lister;
    T empty{};
    describe(lister, empty);
    for (auto it = json.begin(); it != json.end(); ++it)
      if (std::find(lister.names.begin(), lister.names.end(), it.key()) == lister.names.end())
        return descend("." + printable(it.key()), [&] { complain("there is no such member"); });
  }
  static std::string printable(std::string_view text) {
    std::string out;
    for (const char c : text.substr(0, 64)) out += c >= ' ' && c <= '~' ? c : '?';
    return out;
  }

  std::string path_;
  std::optional<std::string> problem_;
  const Json* object_ = nullptr;
  std::size_t known_ = 0;
};

class Writer {
 public:
  template <class T>
  Json write(const T& value) {
    if constexpr (std::is_enum_v<T>) {
      for (const auto& [known, name] : Names<T>::kNames)
        if (known == value) return name;
      return nullptr;
    } else if constexpr (IsOptional<T>::value) {
      return value ? write(*value) : Json(nullptr);
    } else if constexpr (IsVector<T>::value) {
      Json out = Json::array();
      for (const auto& element : value) out.push_back(write(element));
      return out;
    } else if constexpr (IsMap<T>::value) {
      Json out = Json::object();
      for (const auto& [name, element] : value) out[name] = write(element);
      return out;
    } else if constexpr (std::is_class_v<T> && !std::is_same_v<T, std::string>) {
      Json out = Json::object();
      Json* const outer = std::exchange(object_, &out);
      describe(*this, const_cast<T&>(value));  // members are only read
      object_ = outer;
      return out;
    } else {
      return value;
    }
  }
  // --- For describe() ---
  template <class T>
  void member(const char* name, T& value, Need need = Need::kOptional) {
    if constexpr (IsOptional<T>::value) {
      if (!value) return;  // left out rather than null
    }
    if constexpr (IsVector<T>::value) {
      if (value.empty() && need == Need::kOptional) return;
    }
    (*object_)[name] = write(value);
  }
  void neutral(const char*, const Json&) {}

 private:
  Json* object_ = nullptr;
};

// Strictly parsed text: one value, no members twice, within kMaxBody and kMaxDepth.
Result<Json> parse_json(std::string_view text);
// Never fails: bytes that are no UTF-8 are replaced.
std::string dump(const Json& json);

// text -> T, whole: `what` opens the error's sentence.
template <class T>
Result<T> parse_as(std::string_view text, std::string_view what) {
  auto json = parse_json(text);
  if (!json) return wrap(json.error(), "{}", what);
  T out{};
  Reader reader("");
  reader.read(*json, out);
  if (reader.problem()) return wrap(Error(*reader.problem()), "{}", what);
  return out;
}

}  // namespace smol::api

// One description of a structure's members, used both ways: `describe(archive, value)` names each
// member once, and the Reader checks and takes it out of JSON, the Writer puts it into text. Only
// json*.cc include this (nlohmann-json costs seconds a unit).
//
// The Reader keeps the first thing that is wrong, with its path, and goes on doing nothing. What
// does not depend on a type is in json_archive.cc: there are some twenty structures, each read and
// written by code of its own.
#pragma once

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

// An enumeration's names: specialize with `static constexpr const char* kNames[]`, one for each
// enumerator, in order from 0.
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

class Reader {
 public:
  const std::optional<std::string>& problem() const { return problem_; }

  template <class T>
  void read(const Json& json, T& out) {
    if (problem_) return;
    if constexpr (std::is_same_v<T, bool>) {
      out = read_bool(json);
    } else if constexpr (std::is_same_v<T, i64>) {
      out = read_signed(json);
    } else if constexpr (std::is_integral_v<T>) {
      out = static_cast<T>(read_unsigned(json, std::numeric_limits<T>::max()));
    } else if constexpr (std::is_same_v<T, std::string>) {
      read_text(json, out);
    } else if constexpr (std::is_enum_v<T>) {
      out = static_cast<T>(read_name(json, Names<T>::kNames, std::size(Names<T>::kNames)));
    } else if constexpr (IsOptional<T>::value) {
      if (!json.is_null()) read(json, out.emplace());
    } else if constexpr (IsVector<T>::value) {
      read_vector(json, out);
    } else if constexpr (IsMap<T>::value) {
      read_map(json, out);
    } else {
      const Object outer = enter(json);
      if (!problem_) describe(*this, out);
      leave(json, outer);
    }
  }

  // --- For describe() ---
  template <class T>
  void member(const char* name, T& out, Need need = Need::kOptional) {
    const Json* const found = take(name, need);
    if (found == nullptr) return;
    const std::size_t length = push(name);
    read(*found, out);
    pop(length);
  }
  // A member that the API has and this monitor does not: taken when it is null, empty, or has the
  // neutral value, given as JSON.
  void neutral(const char* name, const char* value);
  void complain(std::string_view what);

 private:
  struct Object {
    const Json* json = nullptr;
    std::vector<const char*> known;  // members that were asked for
  };

  Object enter(const Json& json);
  // Complains about members that nobody asked for.
  void leave(const Json& json, const Object& outer);
  const Json* take(const char* name, Need need);
  std::size_t push(std::string_view name);
  std::size_t push(std::size_t index);
  void pop(std::size_t length) { path_.resize(length); }
  void wrong(const Json& json, const char* wanted);
  bool read_bool(const Json& json);
  i64 read_signed(const Json& json);
  u64 read_unsigned(const Json& json, u64 most);
  void read_text(const Json& json, std::string& out);
  std::size_t read_name(const Json& json, const char* const* names, std::size_t count);

  template <class T>
  void read_vector(const Json& json, std::vector<T>& out) {
    if (!json.is_array()) return wrong(json, "an array");
    out.clear();
    for (std::size_t i = 0; i < json.size() && !problem_; ++i) {
      const std::size_t length = push(i);
      read(json[i], out.emplace_back());
      pop(length);
    }
  }
  template <class T>
  void read_map(const Json& json, std::map<std::string, T>& out) {
    if (!json.is_object()) return wrong(json, "an object");
    for (auto it = json.begin(); it != json.end() && !problem_; ++it) {
      const std::size_t length = push(it.key());
      read(it.value(), out[it.key()]);
      pop(length);
    }
  }

  std::string path_;
  std::optional<std::string> problem_;
  Object object_;
};

// Members that are unset or empty are left out, unless they are needed.
class Writer {
 public:
  std::string take() { return std::move(out_); }

  template <class T>
  void write(const T& value) {
    if constexpr (std::is_same_v<T, bool>) {
      out_ += value ? "true" : "false";
    } else if constexpr (std::is_same_v<T, i64>) {
      write_signed(value);
    } else if constexpr (std::is_integral_v<T>) {
      write_unsigned(value);
    } else if constexpr (std::is_same_v<T, std::string>) {
      write_text(value);
    } else if constexpr (std::is_enum_v<T>) {
      write_text(Names<T>::kNames[static_cast<std::size_t>(value)]);
    } else if constexpr (IsOptional<T>::value) {
      write(*value);  // member() leaves out unset ones
    } else if constexpr (IsVector<T>::value) {
      out_ += '[';
      for (const auto& element : value) {
        separate();
        write(element);
      }
      out_ += ']';
    } else if constexpr (IsMap<T>::value) {
      out_ += '{';
      for (const auto& [name, element] : value) {
        write_name(name);
        write(element);
      }
      out_ += '}';
    } else {
      out_ += '{';
      describe(*this, const_cast<T&>(value));  // members are only read
      out_ += '}';
    }
  }
  // --- For describe() ---
  template <class T>
  void member(const char* name, T& value, Need need = Need::kOptional) {
    if constexpr (IsOptional<T>::value) {
      if (!value) return;
    }
    if constexpr (IsVector<T>::value) {
      if (value.empty() && need == Need::kOptional) return;
    }
    write_name(name);
    write(value);
  }
  void neutral(const char*, const char*) {}

 private:
  // A comma, unless the last thing was an opening bracket.
  void separate();
  void write_name(std::string_view name);
  void write_text(std::string_view text);
  void write_unsigned(u64 value);
  void write_signed(i64 value);

  std::string out_;
};

// Strictly parsed text: one value, no members twice, within kMaxBody and kMaxDepth.
Result<Json> parse_json(std::string_view text);
// As it is, when nothing is wrong; else an Error whose sentence begins with what.
Result<> judge(const Reader& reader, std::string_view what);

// text -> T, whole: `what` opens the error's sentence.
template <class T>
Result<T> parse_as(std::string_view text, std::string_view what) {
  auto json = parse_json(text);
  if (!json) return wrap(json.error(), "{}", what);
  T out{};
  Reader reader;
  reader.read(*json, out);
  TRY(judge(reader, what));
  return out;
}

template <class T>
std::string text_of(const T& value) {
  Writer writer;
  writer.write(value);
  return writer.take();
}

}  // namespace smol::api

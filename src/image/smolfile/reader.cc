#include "image/smolfile/reader.h"

#include <algorithm>
#include <charconv>

namespace smol::image {
namespace {

constexpr std::size_t kMostTexts = 4096;

std::string_view kind_of(const toml::node& node) {
  switch (node.type()) {
    case toml::node_type::table:
      return "a table";
    case toml::node_type::array:
      return "a list";
    case toml::node_type::string:
      return "a text";
    case toml::node_type::integer:
      return "a whole number";
    case toml::node_type::floating_point:
      return "a number with a fraction";
    case toml::node_type::boolean:
      return "true or false";
    default:
      return "a date or time";
  }
}

bool good_text(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) {
    return static_cast<unsigned char>(c) >= 0x20 || c == '\t' || c == '\n';
  });
}

}  // namespace

SmolfilePlace place_of(const toml::source_region& region) {
  return {region.begin.line, region.begin.column};
}

std::string place_text(const std::string& path, SmolfilePlace place) {
  return fmt::format("{}:{}:{}", path, place.line, place.column);
}

std::string TableReader::full(std::string_view key) const {
  return name_.empty() ? std::string(key) : fmt::format("{}.{}", name_, key);
}

SmolfilePlace TableReader::place() const { return place_of(table_.source()); }

SmolfilePlace TableReader::place(std::string_view key) const {
  for (auto&& [name, node] : table_)
    if (name.str() == key) return place_of(name.source());
  return place();
}

std::unexpected<Error> TableReader::bad_at(SmolfilePlace place, std::string what) const {
  return fail("{}: {}", place_text(path_, place), what);
}

Result<> TableReader::only(const std::vector<std::string_view>& known) const {
  const toml::key* first = nullptr;
  for (auto&& [name, node] : table_) {
    if (std::find(known.begin(), known.end(), name.str()) != known.end()) continue;
    const auto before = [](const toml::key& a, const toml::key& b) {
      const auto x = a.source().begin, y = b.source().begin;
      return x.line != y.line ? x.line < y.line : x.column < y.column;
    };
    if (first == nullptr || before(name, *first)) first = &name;
  }
  if (first == nullptr) return {};
  const std::string near = nearest_word(first->str(), known);
  return bad_at(place_of(first->source()),
                fmt::format("unknown key '{}'{}", full(first->str()),
                            near.empty() ? "" : fmt::format("; did you mean '{}'?", near)));
}

Result<std::string> TableReader::text_of(const toml::node& node, std::string_view key) const {
  const auto* const value = node.as_string();
  if (value == nullptr)
    return bad_at(place_of(node.source()),
                  fmt::format("'{}' must be a text, not {}", full(key), kind_of(node)));
  if (!good_text(value->get()))
    return bad_at(place_of(node.source()),
                  fmt::format("'{}' holds a control character", full(key)));
  return value->get();
}

Result<> TableReader::text(std::string_view key, std::string& into) const {
  const toml::node* const node = table_.get(key);
  if (node == nullptr) return {};
  TRY_ASSIGN(into, text_of(*node, key));
  return {};
}

Result<> TableReader::texts(std::string_view key, std::vector<std::string>& into) const {
  const toml::node* const node = table_.get(key);
  if (node == nullptr) return {};
  const toml::array* const array = node->as_array();
  if (array == nullptr)
    return bad_at(place_of(node->source()),
                  fmt::format("'{}' must be a list of texts, not {}", full(key), kind_of(*node)));
  if (array->size() > kMostTexts)
    return bad(key, "'{}' has {} entries, {} are allowed", full(key), array->size(), kMostTexts);
  into.clear();
  for (const toml::node& entry : *array) {
    TRY_ASSIGN(auto word, text_of(entry, key));
    into.push_back(std::move(word));
  }
  return {};
}

Result<> TableReader::texts(std::string_view key,
                            std::optional<std::vector<std::string>>& into) const {
  if (!has(key)) return {};
  std::vector<std::string> words;
  // One word is the list of it, as in a Dockerfile's shell-less spelling.
  if (table_.get(key)->is_string()) {
    words.emplace_back();
    TRY(text(key, words[0]));
  } else {
    TRY(texts(key, words));
  }
  into = std::move(words);
  return {};
}

Result<> TableReader::boolean(std::string_view key, bool& into) const {
  const toml::node* const node = table_.get(key);
  if (node == nullptr) return {};
  const auto* const value = node->as_boolean();
  if (value == nullptr)
    return bad_at(place_of(node->source()),
                  fmt::format("'{}' must be true or false, not {}", full(key), kind_of(*node)));
  into = value->get();
  return {};
}

Result<> TableReader::boolean(std::string_view key, std::optional<bool>& into) const {
  if (!has(key)) return {};
  bool value = false;
  TRY(boolean(key, value));
  into = value;
  return {};
}

Result<> TableReader::number(std::string_view key, u64 least, u64 most, u64& into) const {
  const toml::node* const node = table_.get(key);
  if (node == nullptr) return {};
  const auto* const value = node->as_integer();
  if (value == nullptr)
    return bad_at(place_of(node->source()),
                  fmt::format("'{}' must be a whole number, not {}", full(key), kind_of(*node)));
  if (value->get() < 0 || static_cast<u64>(value->get()) < least ||
      static_cast<u64>(value->get()) > most)
    return bad_at(place_of(node->source()), fmt::format("'{}' is {}; it must be from {} to {}",
                                                        full(key), value->get(), least, most));
  into = static_cast<u64>(value->get());
  return {};
}

Result<> TableReader::number(std::string_view key, u64 least, u64 most,
                             std::optional<u64>& into) const {
  if (!has(key)) return {};
  u64 value = 0;
  TRY(number(key, least, most, value));
  into = value;
  return {};
}

Result<> TableReader::duration(std::string_view key, u64& into_ns) const {
  if (!has(key)) return {};
  std::string word;
  TRY(text(key, word));
  constexpr std::pair<std::string_view, u64> kUnits[] = {
      {"ms", 1'000'000}, {"s", 1'000'000'000}, {"m", 60'000'000'000}, {"h", 3'600'000'000'000}};
  u64 value = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  const std::string_view unit(end, static_cast<std::size_t>(word.data() + word.size() - end));
  if (error == std::errc() && value > 0 && value <= 1'000'000)
    for (const auto& [name, factor] : kUnits)
      if (unit == name) {
        into_ns = value * factor;
        return {};
      }
  return bad_at(
      place_of(table_.get(key)->source()),
      fmt::format("'{}' is '{}'; a duration is written as 500ms, 30s, 2m or 1h", full(key), word));
}

Result<> TableReader::pairs(std::string_view key,
                            std::vector<std::pair<std::string, std::string>>& into) const {
  TRY_ASSIGN(const toml::table* const inner, table(key));
  if (inner == nullptr) return {};
  for (auto&& [name, node] : *inner) {
    TRY_ASSIGN(auto value, text_of(node, key));
    into.emplace_back(std::string(name.str()), std::move(value));
  }
  return {};
}

Result<> TableReader::environment(std::string_view key, std::vector<std::string>& into) const {
  const toml::node* const node = table_.get(key);
  if (node == nullptr) return {};
  into.clear();
  if (node->is_table()) {
    std::vector<std::pair<std::string, std::string>> entries;
    TRY(pairs(key, entries));
    for (const auto& [name, value] : entries) into.push_back(name + "=" + value);
  } else {
    TRY(texts(key, into));
  }
  for (std::size_t i = 0; i < into.size(); ++i) {
    const std::size_t equals = into[i].find('=');
    if (equals == 0 || equals == std::string::npos || into[i].find('\n') < equals)
      return bad_at(node->is_array() ? place_of((*node->as_array())[i].source()) : place(key),
                    fmt::format("'{}': '{}' is not NAME=value", full(key), into[i]));
  }
  return {};
}

Result<> TableReader::command(std::string_view key, std::vector<std::string>& into) const {
  const toml::node* const node = table_.get(key);
  if (node == nullptr) return {};
  if (node->is_string()) {
    std::string line;
    TRY(text(key, line));
    into = {"/bin/sh", "-c", std::move(line)};
  } else {
    TRY(texts(key, into));
  }
  if (into.empty() || into.back().empty() || into[0].empty())
    return bad_at(place_of(node->source()), fmt::format("'{}' is an empty command", full(key)));
  return {};
}

Result<const toml::table*> TableReader::table(std::string_view key) const {
  const toml::node* const node = table_.get(key);
  if (node == nullptr) return nullptr;
  if (!node->is_table())
    return bad_at(place(key),
                  fmt::format("'{}' must be a table, not {}", full(key), kind_of(*node)));
  return node->as_table();
}

Result<const toml::array*> TableReader::tables(std::string_view key) const {
  const toml::node* const node = table_.get(key);
  if (node == nullptr) return nullptr;
  const toml::array* const array = node->as_array();
  if (array == nullptr)
    return bad_at(place(key), fmt::format("'{0}' must be written as [[{0}]], not as {1}", full(key),
                                          kind_of(*node)));
  if (array->size() > kMostTexts)
    return bad(key, "'{}' has {} entries, {} are allowed", full(key), array->size(), kMostTexts);
  for (const toml::node& entry : *array)
    if (!entry.is_table())
      return bad_at(
          place_of(entry.source()),
          fmt::format("an entry of '{}' must be a table, not {}", full(key), kind_of(entry)));
  return array;
}

std::string nearest_word(std::string_view word, const std::vector<std::string_view>& known) {
  std::string best;
  std::size_t fewest = word.size() / 3 + 2;  // more changes than this is another word
  for (const std::string_view candidate : known) {
    // Levenshtein's distance, one row at a time.
    std::vector<std::size_t> row(candidate.size() + 1);
    for (std::size_t j = 0; j <= candidate.size(); ++j) row[j] = j;
    if (word.size() > 64) continue;
    for (std::size_t i = 1; i <= word.size(); ++i) {
      std::size_t corner = row[0];
      row[0] = i;
      for (std::size_t j = 1; j <= candidate.size(); ++j) {
        const std::size_t replace = corner + (word[i - 1] == candidate[j - 1] ? 0 : 1);
        corner = row[j];
        row[j] = std::min({row[j] + 1, row[j - 1] + 1, replace});
      }
    }
    if (row.back() < fewest) {
      fewest = row.back();
      best = candidate;
    }
  }
  return best;
}

}  // namespace smol::image

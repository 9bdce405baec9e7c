// A TOML table as the Smolfile's reader sees it: typed values, each error with its place. toml++ is
// known in the units of this folder alone, as src/toml has it.
#pragma once

#include "image/smolfile/smolfile.h"
#include "toml/parse.h"

namespace smol::image {

class TableReader {
 public:
  // name: "" for the file itself, "build" for [build]; both live as long as the reader.
  TableReader(const std::string& path, std::string name, const toml::table& table)
      : path_(path), name_(std::move(name)), table_(table) {}

  // Of the keys that are not in `known` the first one is the Error.
  Result<> only(const std::vector<std::string_view>& known) const;
  bool has(std::string_view key) const { return table_.contains(key); }
  SmolfilePlace place() const;
  SmolfilePlace place(std::string_view key) const;

  // Absent: the value is left alone. Texts hold no zero byte and no control character but tab and
  // newline.
  Result<> text(std::string_view key, std::string& into) const;
  Result<> texts(std::string_view key, std::vector<std::string>& into) const;
  Result<> texts(std::string_view key, std::optional<std::vector<std::string>>& into) const;
  Result<> boolean(std::string_view key, bool& into) const;
  Result<> boolean(std::string_view key, std::optional<bool>& into) const;
  Result<> number(std::string_view key, u64 least, u64 most, u64& into) const;
  Result<> number(std::string_view key, u64 least, u64 most, std::optional<u64>& into) const;
  Result<> duration(std::string_view key, u64& into_ns) const;  // "500ms", "30s", "2m", "1h"
  // Entries "NAME=value"; a table is taken as well: NAME = "value".
  Result<> environment(std::string_view key, std::vector<std::string>& into) const;
  Result<> pairs(std::string_view key,
                 std::vector<std::pair<std::string, std::string>>& into) const;
  // A command: a list of words, or one text for `sh -c`.
  Result<> command(std::string_view key, std::vector<std::string>& into) const;

  // The table of that name; nullptr when absent.
  Result<const toml::table*> table(std::string_view key) const;
  // An array of tables; nullptr when absent.
  Result<const toml::array*> tables(std::string_view key) const;
  const toml::table& raw() const { return table_; }
  const std::string& path() const { return path_; }
  std::string full(std::string_view key) const;

  template <class... Args>
  std::unexpected<Error> bad(std::string_view key, fmt::format_string<Args...> format,
                             Args&&... args) const {
    return bad_at(place(key), fmt::format(format, std::forward<Args>(args)...));
  }
  std::unexpected<Error> bad_at(SmolfilePlace place, std::string what) const;

 private:
  Result<std::string> text_of(const toml::node& node, std::string_view key) const;

  const std::string& path_;
  std::string name_;
  const toml::table& table_;
};

SmolfilePlace place_of(const toml::source_region& region);
std::string place_text(const std::string& path, SmolfilePlace place);

}  // namespace smol::image

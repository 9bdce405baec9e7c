#include "config/settings.h"

#include <sys/stat.h>

#include <cstdlib>

#include "base/fd.h"
#include "toml/parse.h"

namespace smol::config {

namespace {

constexpr std::size_t kMaxText = 1 << 20;

class Reader {
 public:
  explicit Reader(std::string_view name) : name_(name) {}

  template <class... Args>
  std::unexpected<Error> at(const toml::source_region& source, fmt::format_string<Args...> format,
                            Args&&... args) {
    return fail("{}:{}:{}: {}", name_, source.begin.line, source.begin.column,
                fmt::format(format, std::forward<Args>(args)...));
  }

  Result<> read_pack(const toml::table& table, PackSettings& pack) {
    for (const auto& [key, value] : table) {
      if (key.str() == "require-signed") {
        if (!value.is_boolean())
          return at(value.source(), "require-signed is neither true nor false");
        pack.require_signed = value.as_boolean()->get();
      } else if (key.str() == "trusted-keys") {
        TRY(read_keys(value, pack.trusted_keys));
      } else {
        return at(key.source(), "unknown key '{}' in [pack]", key.str());
      }
    }
    return {};
  }

 private:
  Result<> read_keys(const toml::node& value, std::vector<std::string>& into) {
    if (!value.is_array()) return at(value.source(), "trusted-keys is not an array");
    for (const toml::node& item : *value.as_array()) {
      if (!item.is_string())
        return at(item.source(), "trusted-keys holds something that is not a string");
      into.push_back(item.as_string()->get());
    }
    return {};
  }

  std::string_view name_;
};

std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\')
      out += fmt::format("\\{}", c);
    else if (static_cast<u8>(c) < 0x20 || c == 0x7f)
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(static_cast<u8>(c)));
    else
      out += c;
  }
  return out + "\"";
}

std::string list(const std::vector<std::string>& items) {
  std::string out = "[";
  for (const std::string& item : items)
    out += fmt::format("{}{}", out.size() > 1 ? ", " : "", quoted(item));
  return out + "]";
}

}  // namespace

Result<std::string> settings_path() {
  const char* const config = std::getenv("XDG_CONFIG_HOME");
  if (config != nullptr && config[0] == '/') return fmt::format("{}/smolvm/config.toml", config);
  const char* const home = std::getenv("HOME");
  if (home == nullptr || home[0] != '/')
    return fail("neither XDG_CONFIG_HOME nor HOME is an absolute path");
  return fmt::format("{}/.config/smolvm/config.toml", home);
}

Result<Settings> parse_settings(std::string_view text, std::string_view name) {
  if (text.size() > kMaxText) return fail("{}: {} bytes are too many", name, text.size());
  const auto parsed = toml_text::parse(text, name);
  Reader reader(name);
  if (!parsed)
    return reader.at({parsed.error().begin, {}, nullptr}, "{}", parsed.error().description);
  Settings settings;
  for (const auto& [key, value] : *parsed) {
    if (key.str() != "pack") return reader.at(key.source(), "unknown key '{}'", key.str());
    if (!value.is_table()) return reader.at(value.source(), "pack is not a table");
    TRY(reader.read_pack(*value.as_table(), settings.pack));
  }
  return settings;
}

Result<Settings> load_settings() {
  TRY_ASSIGN(const std::string path, settings_path());
  struct stat status{};
  if (stat(path.c_str(), &status) != 0) {
    if (errno == ENOENT || errno == ENOTDIR) return Settings{};
    return fail_errno("{}", path);
  }
  if (static_cast<std::size_t>(status.st_size) > kMaxText)
    return fail("{}: {} bytes are too many", path, status.st_size);
  TRY_ASSIGN(const std::string text, base::read_text_file(path));
  return parse_settings(text, path);
}

std::string to_toml(const Settings& settings) {
  return fmt::format("[pack]\nrequire-signed = {}\ntrusted-keys = {}\n",
                     settings.pack.require_signed, list(settings.pack.trusted_keys));
}

std::string to_json(const Settings& settings) {
  return fmt::format("{{\"pack\": {{\"require-signed\": {}, \"trusted-keys\": {}}}}}\n",
                     settings.pack.require_signed, list(settings.pack.trusted_keys));
}

Result<image::VerifyPolicy> verify_policy(const Settings& settings) {
  image::VerifyPolicy policy{.require_signed = settings.pack.require_signed, .trusted_keys = {}};
  for (const std::string& item : settings.pack.trusted_keys) {
    std::string text = item;
    if (item.starts_with('/')) {
      TRY_ASSIGN(text, base::read_text_file(item));
    }
    auto key = image::PublicKey::parse(text);
    if (!key) return wrap(key.error(), "trusted-keys: '{}'", item);
    policy.trusted_keys.push_back(*key);
  }
  if (policy.require_signed && policy.trusted_keys.empty())
    return fail("the settings say require-signed, but trust no key (trusted-keys)");
  return policy;
}

Result<image::VerifyPolicy> user_verify_policy() {
  TRY_ASSIGN(const Settings settings, load_settings());
  return verify_policy(settings);
}

}  // namespace smol::config

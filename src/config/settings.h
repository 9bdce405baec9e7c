// The user's settings: `$XDG_CONFIG_HOME/smolvm/config.toml` (else `~/.config/smolvm/config.toml`).
// A file that is not there is all defaults; an unknown key or a wrong type is an Error with line
// and column, because a policy that is misspelt must not be silently without effect.
// docs/signing.md describes the keys.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "image/container/container.h"

namespace smol::config {

struct PackSettings {
  bool require_signed = false;
  std::vector<std::string> trusted_keys;  // "RW...", or the absolute path of a .pub file
};

struct Settings {
  PackSettings pack;
};

Result<std::string> settings_path();
// text: TOML of at most 1 MiB; name: for errors.
Result<Settings> parse_settings(std::string_view text, std::string_view name);
Result<Settings> load_settings();
// The settings as TOML, with all defaults; what `smolvm config show` prints.
std::string to_toml(const Settings& settings);
std::string to_json(const Settings& settings);

// The keys, read. A key that cannot be read is an Error; require-signed without a key, too.
Result<image::VerifyPolicy> verify_policy(const Settings& settings);
// verify_policy(load_settings()).
Result<image::VerifyPolicy> user_verify_policy();

}  // namespace smol::config

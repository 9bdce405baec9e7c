// $XDG_CONFIG_HOME/smolvm/registries.toml: what a user says of registries. docs/images.md has an
// example.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace smol::image {

struct RegistryRules {
  std::string location;  // host[:port][/prefix] that is really asked; "" for the name itself
  std::vector<std::string> mirrors;  // asked first, in this order
  bool insecure = false;  // certificates are not checked, and plain HTTP is spoken where TLS is not
  std::string ca;         // file of certificates, trusted for this registry beside the system's
};
using Registries = std::map<std::string, RegistryRules>;  // by name: "docker.io", "localhost:5000"

Result<std::string> registries_path();
// A missing file has no rules; unknown keys are refused with their line.
Result<Registries> read_registries(const std::string& path);
Result<Registries> parse_registries(std::string_view text, const std::string& path);
// What `smolvm config registries init` writes: all of it as comments.
std::string_view registries_example();

}  // namespace smol::image

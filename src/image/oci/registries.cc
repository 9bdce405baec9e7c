#include "image/oci/registries.h"

#include <algorithm>
#include <cstdlib>

#include "base/bytes.h"
#include "base/fd.h"
#include "image/oci/reference.h"
#include "toml/parse.h"

namespace smol::image {
namespace {

constexpr std::size_t kLongest = kMiB;

const char* variable(const char* name) {
  const char* const value = std::getenv(name);
  return value != nullptr && value[0] != '\0' ? value : nullptr;
}

class Reader {
 public:
  explicit Reader(const std::string& path) : path_(path) {}

  Result<Registries> read(const toml::table& file) {
    Registries registries;
    for (auto&& [key, node] : file) {
      if (key.str() != "registry" || !node.is_table())
        return bad(key.source(),
                   fmt::format("'{}' is not known; rules are [registry.\"NAME\"]", key.str()));
      for (auto&& [name, rules] : *node.as_table()) {
        if (!rules.is_table() || !parse_reference(std::string(name.str()) + "/x") ||
            name.str().find('/') != std::string_view::npos)
          return bad(name.source(), fmt::format("'{}' is no registry", name.str()));
        TRY_ASSIGN(registries[std::string(name.str())], read_rules(*rules.as_table()));
      }
    }
    return registries;
  }

 private:
  std::unexpected<Error> bad(const toml::source_region& where, const std::string& what) const {
    return fail("{}:{}:{}: {}", path_, where.begin.line, where.begin.column, what);
  }

  Result<RegistryRules> read_rules(const toml::table& table) {
    RegistryRules rules;
    for (auto&& [key, node] : table) {
      const std::string_view name = key.str();
      const toml::source_region where = key.source();
      if (name == "insecure") {
        if (!node.is_boolean()) return bad(where, "'insecure' is true or false");
        rules.insecure = node.as_boolean()->get();
      } else if (name == "ca" || name == "location") {
        if (!node.is_string()) return bad(where, fmt::format("'{}' is a text", name));
        (name == "ca" ? rules.ca : rules.location) = node.as_string()->get();
      } else if (name == "mirrors") {
        if (!node.is_array()) return bad(where, "'mirrors' is a list of texts");
        for (auto&& mirror : *node.as_array()) {
          if (!mirror.is_string()) return bad(where, "'mirrors' is a list of texts");
          rules.mirrors.push_back(mirror.as_string()->get());
        }
      } else {
        return bad(where, fmt::format("'{}' is not known (mirrors, insecure, ca, location)", name));
      }
    }
    return rules;
  }

  const std::string& path_;
};

}  // namespace

Result<std::string> registries_path() {
  if (const char* const config = variable("XDG_CONFIG_HOME"))
    return std::string(config) + "/smolvm/registries.toml";
  if (const char* const home = variable("HOME"))
    return std::string(home) + "/.config/smolvm/registries.toml";
  return fail("no folder for the configuration: neither XDG_CONFIG_HOME nor HOME is set");
}

Result<Registries> parse_registries(std::string_view text, const std::string& path) {
  if (text.size() > kLongest) return fail("{} is too long", path);
  if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);  // a mark of byte order
  const auto parsed = toml_text::parse(text, path);
  if (!parsed)
    return fail("{}:{}:{}: {}", path, parsed.error().begin.line, parsed.error().begin.column,
                parsed.error().description);
  return Reader(path).read(*parsed);
}

Result<Registries> read_registries(const std::string& path) {
  auto text = base::read_text_file(path);
  if (text) return parse_registries(*text, path);
  if (text.error().error_number() == ENOENT || text.error().error_number() == ENOTDIR)
    return Registries();
  return std::unexpected(text.error());
}

std::string_view registries_example() {
  return R"(# Registries of container images, as smolvm uses them. User names and passwords are not here: those of
# `docker login` and `podman login` are used.
#
# [registry."docker.io"]
# mirrors = ["mirror.example:5000", "https://cache.example/hub"]   # asked first, in this order
#
# [registry."registry.example"]
# ca = "/etc/ssl/example-ca.pem"        # trusted beside the system's certificates
# location = "real.example:8443/team"   # what is asked instead of registry.example
#
# [registry."lab.example:5000"]
# insecure = true                       # certificates are not checked; plain HTTP where there is no TLS
)";
}

}  // namespace smol::image

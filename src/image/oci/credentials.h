// User names and passwords for registries, from the files that Docker and Podman keep and from
// their credential helpers (docker's config.json: auths, credHelpers, credsStore;
// containers-auth.json(5)).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace smol::image {

struct Credentials {
  std::string user, password;
  std::string identity_token;  // instead of them: to be exchanged at the token server
  std::string source;          // the file or helper, for errors
  bool empty() const { return user.empty() && password.empty() && identity_token.empty(); }
};

// Where to look, first to last: $REGISTRY_AUTH_FILE, $XDG_RUNTIME_DIR/containers/auth.json,
// $XDG_CONFIG_HOME/containers/auth.json, $DOCKER_CONFIG/config.json (default folders: ~/.config,
// ~/.docker).
std::vector<std::string> credential_files();

// For "localhost:5000" and "a/b". A file that is missing is none; one that cannot be read or
// parsed, or a helper that fails, is an Error. nullopt: nothing is known of this registry.
Result<std::optional<Credentials>> find_credentials(const std::vector<std::string>& files,
                                                    const std::string& registry,
                                                    const std::string& repository);

}  // namespace smol::image

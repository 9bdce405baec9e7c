#include "image/oci/credentials.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "base/fd.h"
#include "base/time.h"
#include "fetch/url.h"
#include "image/oci/json_reader.h"

namespace smol::image {
namespace {

constexpr u64 kMaxAnswer = 256 * kKiB;
constexpr u64 kHelperNs = 30 * base::kNsPerSecond;
constexpr std::string_view kDockerIo = "docker.io";
// The names that Docker Hub has in these files.
constexpr std::string_view kDockerKeys[] = {"https://index.docker.io/v1/", "index.docker.io",
                                            "docker.io", "registry-1.docker.io"};

const char* variable(const char* name) {
  const char* const value = std::getenv(name);
  return value != nullptr && value[0] != '\0' ? value : nullptr;
}

// "https://host/v1/" and "host/" -> "host"
std::string plain_key(std::string_view key) {
  if (const std::size_t scheme = key.find("://"); scheme != std::string_view::npos) {
    key.remove_prefix(scheme + 3);
    key = key.substr(0, key.find('/'));
  }
  while (key.ends_with('/')) key.remove_suffix(1);
  return std::string(key);
}

// Keys that fit, most specific first: host/a/b, host/a, host.
std::vector<std::string> keys_for(const std::string& registry, const std::string& repository) {
  std::vector<std::string> keys;
  for (std::string path = registry + "/" + repository; path.size() > registry.size();
       path.resize(path.rfind('/')))
    keys.push_back(path);
  keys.push_back(registry);
  if (registry == kDockerIo)
    keys.insert(keys.end(), std::begin(kDockerKeys), std::end(kDockerKeys));
  return keys;
}

Result<std::optional<Credentials>> from_entry(const Json& entry) {
  if (!entry.is_object()) return fail("an entry of 'auths' is no object");
  Credentials credentials;
  TRY_ASSIGN(credentials.user, text_member(entry, "username"));
  TRY_ASSIGN(credentials.password, text_member(entry, "password"));
  TRY_ASSIGN(credentials.identity_token, text_member(entry, "identitytoken"));
  TRY_ASSIGN(const std::string encoded, text_member(entry, "auth"));
  if (!encoded.empty()) {
    TRY_ASSIGN(const std::string pair, fetch::from_base64(encoded));
    const std::size_t colon = pair.find(':');
    if (colon == std::string::npos) return fail("'auth' is not user:password");
    credentials.user = pair.substr(0, colon);
    credentials.password = pair.substr(colon + 1);
    while (credentials.password.ends_with('\0')) credentials.password.pop_back();
  }
  if (credentials.empty()) return std::optional<Credentials>();
  return std::optional(std::move(credentials));
}

Result<std::string> read_all(int fd, u64 deadline_ns) {
  std::string text;
  char buffer[4096];
  for (;;) {
    const u64 now = base::monotonic_ns();
    if (now >= deadline_ns) return fail("no answer for {} s", kHelperNs / base::kNsPerSecond);
    pollfd polled{fd, POLLIN, 0};
    if (::poll(&polled, 1, static_cast<int>((deadline_ns - now) / 1'000'000 + 1)) <= 0) continue;
    const ssize_t got = ::read(fd, buffer, sizeof buffer);
    if (got == 0) return text;
    if (got < 0 && errno != EINTR) return fail_errno("cannot read its answer");
    if (got > 0) text.append(buffer, static_cast<std::size_t>(got));
    if (text.size() > kMaxAnswer) return fail("its answer is too long");
  }
}

// Runs `program get` with the registry's name on its standard input.
Result<std::string> ask_helper(const std::string& program, const std::string& registry,
                               bool& succeeded) {
  int to[2], from[2];
  if (::pipe2(to, O_CLOEXEC) != 0) return fail_errno("cannot make a pipe");
  base::UniqueFd to_read(to[0]), to_write(to[1]);
  if (::pipe2(from, O_CLOEXEC) != 0) return fail_errno("cannot make a pipe");
  base::UniqueFd from_read(from[0]), from_write(from[1]);
  // The name fits in a pipe, so it is written before anyone reads: no signal when nobody does.
  TRY(base::write_all(to_write.get(),
                      {reinterpret_cast<const u8*>(registry.data()), registry.size()}, program));
  to_write.reset();
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, to_read.get(), STDIN_FILENO);
  ::posix_spawn_file_actions_adddup2(&actions, from_write.get(), STDOUT_FILENO);
  char get[] = "get";
  std::string name = program;
  char* const arguments[] = {name.data(), get, nullptr};
  pid_t child = 0;
  const int status = ::posix_spawnp(&child, program.c_str(), &actions, nullptr, arguments, environ);
  ::posix_spawn_file_actions_destroy(&actions);
  if (status != 0) return std::unexpected(Error::from_errno(status, "cannot run it"));
  from_write.reset();
  auto answer = read_all(from_read.get(), base::monotonic_ns() + kHelperNs);
  if (!answer) ::kill(child, SIGKILL);
  int ended = 0;
  while (::waitpid(child, &ended, 0) < 0 && errno == EINTR) {
  }
  succeeded = WIFEXITED(ended) && WEXITSTATUS(ended) == 0;
  return answer;
}

Result<std::optional<Credentials>> from_helper(const std::string& name,
                                               const std::string& registry) {
  const std::string program = "docker-credential-" + name;
  if (name.find('/') != std::string::npos)
    return fail("'{}' is no name of a credential helper", name);
  bool succeeded = false;
  auto answer = ask_helper(program, registry, succeeded);
  if (!answer) return wrap(answer.error(), "the credential helper {}", program);
  if (!succeeded) {
    if (answer->find("not found") != std::string::npos) return std::optional<Credentials>();
    return fail("the credential helper {} failed: {}", program,
                answer->substr(0, answer->find('\n')));
  }
  auto document = parse_object(*answer, "its answer");
  if (!document) return wrap(document.error(), "the credential helper {}", program);
  Credentials credentials;
  TRY_ASSIGN(credentials.user, text_member(*document, "Username"));
  TRY_ASSIGN(credentials.password, text_member(*document, "Secret"));
  if (credentials.user == "<token>") {
    credentials.identity_token = std::move(credentials.password);
    credentials.user.clear();
    credentials.password.clear();
  }
  credentials.source = program;
  if (credentials.empty()) return std::optional<Credentials>();
  return std::optional(std::move(credentials));
}

Result<std::optional<Credentials>> from_document(const Json& document, const std::string& registry,
                                                 const std::string& repository) {
  const std::vector<std::string> keys = keys_for(registry, repository);
  TRY_ASSIGN(const auto helpers, map_member(document, "credHelpers"));
  for (const std::string& key : keys)
    if (const auto found = helpers.find(key); found != helpers.end()) {
      TRY_ASSIGN(auto credentials, from_helper(found->second, key));
      if (credentials) return credentials;
    }
  if (const Json* const auths = member(document, "auths"); auths != nullptr) {
    if (!auths->is_object()) return fail("'auths' is no object");
    for (const std::string& key : keys)
      for (const auto& [name, entry] : auths->items()) {
        if (name != key && plain_key(name) != key) continue;
        TRY_ASSIGN(auto credentials, from_entry(entry));
        if (credentials) return credentials;
      }
  }
  TRY_ASSIGN(const std::string store, text_member(document, "credsStore"));
  if (store.empty()) return std::optional<Credentials>();
  return from_helper(store, registry == kDockerIo ? std::string(kDockerKeys[0]) : registry);
}

}  // namespace

std::vector<std::string> credential_files() {
  std::vector<std::string> files;
  const char* const home = variable("HOME");
  if (const char* const given = variable("REGISTRY_AUTH_FILE")) files.emplace_back(given);
  if (const char* const runtime = variable("XDG_RUNTIME_DIR"))
    files.push_back(std::string(runtime) + "/containers/auth.json");
  if (const char* const config = variable("XDG_CONFIG_HOME"))
    files.push_back(std::string(config) + "/containers/auth.json");
  else if (home != nullptr)
    files.push_back(std::string(home) + "/.config/containers/auth.json");
  if (const char* const docker = variable("DOCKER_CONFIG"))
    files.push_back(std::string(docker) + "/config.json");
  else if (home != nullptr)
    files.push_back(std::string(home) + "/.docker/config.json");
  return files;
}

Result<std::optional<Credentials>> find_credentials(const std::vector<std::string>& files,
                                                    const std::string& registry,
                                                    const std::string& repository) {
  for (const std::string& file : files) {
    auto text = base::read_text_file(file);
    if (!text && (text.error().error_number() == ENOENT || text.error().error_number() == ENOTDIR))
      continue;
    if (!text) return wrap(text.error(), "credentials");
    if (text->empty()) continue;
    auto document = parse_object(*text, file);
    if (!document) return std::unexpected(document.error());
    auto found = from_document(*document, registry, repository);
    if (!found) return wrap(found.error(), "{}", file);
    if (!*found) continue;
    if ((*found)->source.empty()) (*found)->source = file;
    return found;
  }
  return std::optional<Credentials>();
}

}  // namespace smol::image

// The file with what a user says of registries: path, show, init, edit.
#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include "base/fd.h"
#include "cli.h"
#include "image/oci/registries.h"
#include "machines/data_dir.h"

namespace smolvm {
namespace {

using namespace smol;

// false: it was there.
Result<bool> init(const std::string& path) {
  TRY(machines::make_folders(path.substr(0, path.rfind('/'))));
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0 && errno == EEXIST) return false;
  if (fd < 0) return fail_errno("cannot create {}", path);
  const base::UniqueFd file(fd);
  const std::string_view text = image::registries_example();
  TRY(base::write_all(fd, {reinterpret_cast<const u8*>(text.data()), text.size()}, path));
  return true;
}

Result<int> edit(const std::string& path) {
  TRY(init(path));
  const char* editor = std::getenv("VISUAL");
  if (editor == nullptr || editor[0] == '\0') editor = std::getenv("EDITOR");
  if (editor == nullptr || editor[0] == '\0') editor = "vi";
  // An editor may be a command with options, as for git: the shell splits it.
  std::string shell = "sh", flag = "-c", name = "sh", file = path;
  std::string command = std::string(editor) + " \"$1\"";
  char* const arguments[] = {shell.data(), flag.data(), command.data(),
                             name.data(),  file.data(), nullptr};
  pid_t child = 0;
  if (const int status = ::posix_spawn(&child, "/bin/sh", nullptr, nullptr, arguments, environ);
      status != 0)
    return std::unexpected(Error::from_errno(status, "cannot run /bin/sh"));
  int ended = 0;
  while (::waitpid(child, &ended, 0) < 0 && errno == EINTR) {
  }
  if (!WIFEXITED(ended) || WEXITSTATUS(ended) != 0) return fail("the editor '{}' failed", editor);
  TRY(image::read_registries(path));
  return 0;
}

}  // namespace

Result<int> run_config_registries(const Invocation& invocation) {
  const std::string& what = invocation.words[0];
  TRY_ASSIGN(const std::string path, image::registries_path());
  if (what == "path") {
    fmt::print("{}\n", path);
    return 0;
  }
  if (what == "edit") return edit(path);
  if (what == "init") {
    TRY_ASSIGN(const bool made, init(path));
    if (!made) return fail("{} is there already", path);
    fmt::print("{}\n", path);
    return 0;
  }
  if (what != "show") return fail("'{}' is not known: path, show, edit or init", what);
  TRY_ASSIGN(const image::Registries registries, image::read_registries(path));
  if (registries.empty()) fmt::print("no rules for registries ({})\n", path);
  for (const auto& [name, rules] : registries) {
    fmt::print("{}\n", name);
    for (const std::string& mirror : rules.mirrors) fmt::print("  mirror    {}\n", mirror);
    if (!rules.location.empty()) fmt::print("  location  {}\n", rules.location);
    if (!rules.ca.empty()) fmt::print("  ca        {}\n", rules.ca);
    if (rules.insecure) fmt::print("  insecure\n");
  }
  return 0;
}

}  // namespace smolvm

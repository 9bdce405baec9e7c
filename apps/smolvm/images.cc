// -I, --rootfs and what a Smolfile names: to a root file system and a program.
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

#include "options.h"

namespace smolvm {
namespace {

using namespace smol;

bool is_directory(const std::string& path) {
  struct stat status{};
  return ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

Result<std::string> absolute(const std::string& path) {
  char resolved[PATH_MAX];
  if (::realpath(path.c_str(), resolved) == nullptr)
    return fail_errno("cannot use {} as a root file system", path);
  return std::string(resolved);
}

// `create` makes a machine that waits for `exec`, unless a program was asked for.
void set_program(const Invocation& invocation, const machines::ProgramChoice& choice,
                 const machines::Words& entrypoint, const machines::Words& command,
                 machines::MachineSpec& spec) {
  const bool create = std::string_view(invocation.verb->path) == "machine create";
  spec.command.clear();
  if (!create || choice.explicit_program())
    spec.command = machines::program_words(choice, entrypoint, command);
}

}  // namespace

Result<> choose_root(const Invocation& invocation, machines::ProgramChoice choice,
                     machines::MachineSpec& spec) {
  if (invocation.has("image") && invocation.has("rootfs"))
    return fail("-I and --rootfs both name a root file system");
  choice.words = invocation.command;
  if (invocation.has("entrypoint")) {
    const std::string word = invocation.text("entrypoint");
    choice.entrypoint = word.empty() ? machines::Words{} : machines::Words{word};
    choice.command.reset();
  }
  std::string image = invocation.text("image", spec.image);
  spec.image.clear();
  if (invocation.has("rootfs")) {
    image.clear();
    TRY_ASSIGN(spec.rootfs, absolute(invocation.text("rootfs")));
  } else if (!image.empty() && is_directory(image)) {
    TRY_ASSIGN(spec.rootfs, absolute(image));
  } else if (!image.empty()) {
    return fail(
        "-I {}: image references and archives are not supported yet, a root file system's "
        "directory is",
        image);
  }
  set_program(invocation, choice, {}, {}, spec);
  return {};
}

}  // namespace smolvm

// Where the guest kernels are: beside the program (../share/smolvm), or in $SMOLVM_SHARE.
#include <unistd.h>

#include <climits>
#include <cstdio>
#include <cstdlib>

#include "cli.h"
#include "machines/monitor_process.h"

namespace smolvm {

Result<std::string> find_kernel(const std::string& name) {
  if (name != "micro" && name != "full")
    return smol::fail("unknown kernel '{}': micro and full are known", name);
  TRY_ASSIGN(const std::string folder, smol::machines::program_folder());
  std::string share = folder + "/../share/smolvm";
  if (const char* const given = std::getenv("SMOLVM_SHARE"); given != nullptr) share = given;
  const std::string path = share + "/vmlinux-" + name;
  char resolved[PATH_MAX];
  if (::realpath(path.c_str(), resolved) == nullptr)
    return smol::fail_errno("the kernel {} is not there ({}; `tools/dev kernel {}` builds it)",
                            name, path, name);
  return std::string(resolved);
}

Result<int> run_kernel_path(const Invocation& invocation) {
  TRY_ASSIGN(const std::string path, find_kernel(invocation.words[0]));
  std::printf("%s\n", path.c_str());
  return 0;
}

}  // namespace smolvm

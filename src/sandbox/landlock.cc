#include "sandbox/landlock.h"

#include <fcntl.h>
#include <linux/landlock.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"

namespace smol::sandbox {
namespace {

// Of newer kernels than the headers; values from the kernel's interface.
constexpr u64 kRefer = 1ull << 13, kTruncate = 1ull << 14, kIoctlDevice = 1ull << 15;
constexpr u64 kScopeAbstractSockets = 1, kScopeSignals = 2;

constexpr u64 kReadFile = LANDLOCK_ACCESS_FS_READ_FILE;
constexpr u64 kReadTree = kReadFile | LANDLOCK_ACCESS_FS_READ_DIR;
constexpr u64 kWriteFile = kReadFile | LANDLOCK_ACCESS_FS_WRITE_FILE | kTruncate | kIoctlDevice;
constexpr u64 kEntries = kReadTree | LANDLOCK_ACCESS_FS_WRITE_FILE | kTruncate |
                         LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SOCK |
                         LANDLOCK_ACCESS_FS_REMOVE_FILE;
constexpr u64 kTree = kEntries | LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_SYM |
                      LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_CHAR |
                      LANDLOCK_ACCESS_FS_MAKE_BLOCK | LANDLOCK_ACCESS_FS_REMOVE_DIR | kRefer;
// What only a directory can be given.
constexpr u64 kOnlyDirectories = ~(kWriteFile | LANDLOCK_ACCESS_FS_EXECUTE);

struct Ruleset {
  u64 files = 0, network = 0, scoped = 0;
};

// All file rights that a kernel of this ABI can handle.
u64 handled_files(int abi) {
  u64 all = (1ull << 13) - 1;
  if (abi >= 2) all |= kRefer;
  if (abi >= 3) all |= kTruncate;
  if (abi >= 5) all |= kIoctlDevice;
  return all;
}

u64 rights(Access access) {
  switch (access) {
    case Access::kRead:
      return kReadTree;
    case Access::kReadWrite:
      return kWriteFile;
    case Access::kEntries:
      return kEntries;
    case Access::kShare:
      return kTree;
  }
  return 0;
}

Result<> add_path(int ruleset, const PathRule& rule, u64 handled) {
  const base::UniqueFd fd(::open(rule.path.c_str(), O_PATH | O_CLOEXEC));
  if (!fd.valid()) return {};
  struct stat status{};
  if (::fstat(fd.get(), &status) != 0) return fail_errno("cannot stat {}", rule.path);
  u64 allowed = rights(rule.access) & handled;
  if (!S_ISDIR(status.st_mode)) allowed &= ~kOnlyDirectories;
  const landlock_path_beneath_attr beneath{.allowed_access = allowed, .parent_fd = fd.get()};
  if (::syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &beneath, 0) != 0)
    return fail_errno("cannot add {} to the Landlock rules", rule.path);
  return {};
}

}  // namespace

Part restrict_files(const Plan& plan) {
  const long abi =
      ::syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION);
  if (abi < 1) return {false, "the host's kernel has no Landlock, or has it switched off"};
  Ruleset attributes{.files = handled_files(static_cast<int>(abi))};
  std::size_t size = sizeof(u64);
  if (abi >= 6) {
    attributes.scoped = kScopeSignals | (plan.host_network ? 0 : kScopeAbstractSockets);
    size = sizeof attributes;
  }
  const base::UniqueFd ruleset(
      static_cast<int>(::syscall(SYS_landlock_create_ruleset, &attributes, size, 0)));
  if (!ruleset.valid())
    return {false, fail_errno("cannot create a Landlock ruleset").error().chain()};
  for (const PathRule& rule : plan.paths)
    if (const auto added = add_path(ruleset.get(), rule, attributes.files); !added)
      return {false, added.error().chain()};
  if (::syscall(SYS_landlock_restrict_self, ruleset.get(), 0) != 0)
    return {false, fail_errno("cannot confine itself by Landlock").error().chain()};
  return {true, fmt::format("ABI {}", abi)};
}

}  // namespace smol::sandbox

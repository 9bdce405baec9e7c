// The paths are cloned as detached mounts first (open_tree(2)), so that it does not matter what the
// new root covers; then they are put where they were, under an empty file system, and that becomes
// "/" (pivot_root(2)). Paths keep their names: what opens a file again later, as a machine does
// when its guest reboots, finds it.
#include "sandbox/root.h"

#include <fcntl.h>
#include <linux/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdlib>

#include "base/fd.h"

// Not in every libc beside linux/mount.h.
extern "C" int mount(const char*, const char*, const char*, unsigned long, const void*);
extern "C" int umount2(const char*, int);

namespace smol::sandbox {
namespace {

constexpr unsigned long kRecursivePrivate = 0x4000 | 0x40000;  // MS_REC | MS_PRIVATE
constexpr unsigned long kMove = 0x2000;                        // MS_MOVE
constexpr int kDetach = 2;                                     // MNT_DETACH

struct Tree {
  std::string path;  // absolute, without links
  Access access;
  bool directory;
  base::UniqueFd fd;
};

int set_attributes(int directory, const char* path, u64 attributes, unsigned flags) {
  mount_attr change{};
  change.attr_set = attributes;
  return static_cast<int>(
      ::syscall(SYS_mount_setattr, directory, path, flags, &change, sizeof change));
}

Result<> add_tree(std::vector<Tree>& trees, const std::string& path, Access access,
                  bool directory) {
  const auto same =
      std::find_if(trees.begin(), trees.end(), [&](const Tree& tree) { return tree.path == path; });
  if (same != trees.end()) {
    same->access = std::max(same->access, access);
    return {};
  }
  base::UniqueFd fd(static_cast<int>(::syscall(
      SYS_open_tree, AT_FDCWD, path.c_str(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE)));
  if (!fd.valid()) return fail_errno("cannot clone the mount of {}", path);
  trees.push_back({path, access, directory, std::move(fd)});
  return {};
}

Result<std::vector<Tree>> clone_trees(const Plan& plan) {
  std::vector<Tree> trees;
  for (const PathRule& rule : plan.paths) {
    char real[PATH_MAX];
    struct stat status{};
    if (::realpath(rule.path.c_str(), real) == nullptr || ::stat(real, &status) != 0) continue;
    TRY(add_tree(trees, real, rule.access, S_ISDIR(status.st_mode)));
    // A name with a link in it (/etc/resolv.conf is one on many hosts) is kept beside what it leads
    // to.
    if (rule.path.starts_with('/') && rule.path != real)
      TRY(add_tree(trees, rule.path, rule.access, S_ISDIR(status.st_mode)));
  }
  // Parents first.
  std::sort(trees.begin(), trees.end(),
            [](const Tree& a, const Tree& b) { return a.path < b.path; });
  return trees;
}
// All folders above path, below the working directory.
void make_parents(const std::string& path) {
  for (std::size_t at = path.find('/', 1); at != std::string::npos; at = path.find('/', at + 1))
    ::mkdir(("." + path.substr(0, at)).c_str(), 0755);
}

Result<> place(const Tree& tree) {
  make_parents(tree.path);
  const std::string target = "." + tree.path;
  if (tree.directory) {
    if (tree.path != "/" && ::mkdir(target.c_str(), 0755) != 0 && errno != EEXIST)
      return fail_errno("cannot make {}", tree.path);
  } else if (const base::UniqueFd file(
                 ::open(target.c_str(), O_CREAT | O_CLOEXEC | O_WRONLY | O_NOFOLLOW, 0600));
             !file.valid() && errno != EROFS && errno != EACCES && errno != ENXIO) {
    return fail_errno("cannot make a place for {}", tree.path);
  }
  if (::syscall(SYS_move_mount, tree.fd.get(), "", AT_FDCWD, target.c_str(),
                MOVE_MOUNT_F_EMPTY_PATH) != 0)
    return fail_errno("cannot mount {}", tree.path);
  u64 attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC;
  if (tree.access == Access::kRead) attributes |= MOUNT_ATTR_RDONLY;
  set_attributes(tree.fd.get(), "", attributes,
                 AT_EMPTY_PATH | AT_RECURSIVE);  // stricter flags that the host has locked stay
  return {};
}

// The working directory becomes "/". Where the host itself runs from its initial root file system,
// that cannot be exchanged and is covered instead; without capabilities nobody gets under the
// cover.
Result<> change_root() {
  if (::syscall(SYS_pivot_root, ".", ".") == 0) {
    if (::umount2(".", kDetach) != 0) return fail_errno("cannot leave the old root");
    return {};
  }
  if (errno != EINVAL) return fail_errno("cannot change to the new root");
  if (::mount(".", "/", nullptr, kMove, nullptr) != 0 || ::chroot(".") != 0)
    return fail_errno("cannot cover the initial root");
  return {};
}

}  // namespace

Result<Part> enter_own_root(const Plan& plan) {
  char working[PATH_MAX] = "/";
  if (::getcwd(working, sizeof working) == nullptr) working[1] = 0;
  if (::mount(nullptr, "/", nullptr, kRecursivePrivate, nullptr) != 0)
    return Part{false, fail_errno("mounts cannot be made private").error().chain()};
  auto trees = clone_trees(plan);
  if (!trees) return Part{false, trees.error().chain()};
  static constexpr const char* kPlaces[] = {"/tmp", "/run", "/dev", "/proc"};
  const char* place_at = nullptr;
  for (const char* const candidate : kPlaces)
    if (place_at == nullptr && ::mount("smol", candidate, "tmpfs", 0, "mode=755,size=1m") == 0)
      place_at = candidate;
  if (place_at == nullptr)
    return Part{false, fail_errno("no place for a file system in memory").error().chain()};
  if (::chdir(place_at) != 0) return fail_errno("cannot enter the new root");
  make_parents(std::string(working) + "/");
  for (const Tree& tree : *trees)
    if (const auto placed = place(tree); !placed)
      return wrap(placed.error(), "building the monitor's own root");
  TRY(change_root());
  set_attributes(AT_FDCWD, "/",
                 MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC, 0);
  if (::chdir(working) != 0 && ::chdir("/") != 0) return fail_errno("cannot enter the new root");
  return Part{true, fmt::format("own root with {} paths", trees->size())};
}

}  // namespace smol::sandbox

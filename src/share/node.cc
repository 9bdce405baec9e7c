// See the header for how nobody gets out.
#include "share/node.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace smol::share {
namespace {

constexpr u64 kBeneath = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
constexpr int kMaxDepth = 4096;  // steps up to a root
constexpr int kTries = 8;        // of a system call that a race or a signal disturbs

int open_beneath(int directory, const char* name, int flags, u32 mode = 0) {
  open_how how{};
  how.flags = static_cast<u64>(static_cast<unsigned>(flags | O_CLOEXEC));
  how.mode = mode;
  how.resolve = kBeneath;
  for (int attempt = 0;; ++attempt) {
    const long fd = ::syscall(SYS_openat2, directory, name, &how, sizeof(how));
    if (fd >= 0 || (errno != EINTR && errno != EAGAIN) || attempt == kTries)
      return static_cast<int>(fd);
  }
}

}  // namespace

Result<std::unique_ptr<Nodes>> Nodes::create(u32 limit) {
  auto nodes = std::make_unique<Nodes>();
  auto proc = base::open_file("/proc/self/fd", O_PATH | O_DIRECTORY);
  if (!proc) return wrap(proc.error(), "sharing directories needs /proc");
  nodes->proc_ = std::move(*proc);
  nodes->budget_.limit = limit;
  return nodes;
}

Result<NodePointer> Nodes::open_root(const std::string& path) {
  TRY_ASSIGN(base::UniqueFd fd, base::open_file(path, O_PATH));
  struct stat status{};
  if (::fstat(fd.get(), &status) != 0) return fail_errno("cannot stat {}", path);
  if (!S_ISDIR(status.st_mode)) return fail("{} is not a directory", path);
  return std::make_shared<Node>(Node{.fd = HeldFd(std::move(fd), budget_),
                                     .device = status.st_dev,
                                     .inode = status.st_ino,
                                     .kind = S_IFDIR});
}

Outcome<std::string> Nodes::check_name(std::string_view name) {
  if (name.size() > kMaxName) return refuse(ENAMETOOLONG);
  if (name.empty() || name == "." || name == "..") return refuse(EINVAL);
  for (const char c : name)
    if (c == '/' || c == '\0') return refuse(EINVAL);
  return std::string(name);
}

Outcome<> Nodes::want_descriptor() const {
  if (budget_.used >= budget_.limit) return refuse(EMFILE);
  return {};
}

Outcome<NodePointer> Nodes::adopt(int fd) {
  if (fd < 0) return refuse_errno();
  HeldFd held(base::UniqueFd(fd), budget_);
  struct stat status{};
  if (::fstat(held.get(), &status) != 0) return refuse_errno();
  return std::make_shared<Node>(Node{.fd = std::move(held),
                                     .device = status.st_dev,
                                     .inode = status.st_ino,
                                     .kind = status.st_mode & S_IFMT});
}

Outcome<NodePointer> Nodes::child(const Node& directory, std::string_view name) {
  TRY_ASSIGN(const std::string checked, check_name(name));
  if (!directory.is_directory()) return refuse(ENOTDIR);
  TRY(want_descriptor());
  return adopt(open_beneath(directory.fd.get(), checked.c_str(), O_PATH | O_NOFOLLOW));
}

Outcome<NodePointer> Nodes::parent(const Node& directory, const Node& root) {
  if (!directory.is_directory()) return refuse(ENOTDIR);
  TRY(want_descriptor());
  const auto up = [](int fd) {
    return base::UniqueFd(::openat(fd, "..", O_PATH | O_DIRECTORY | O_CLOEXEC));
  };
  TRY_ASSIGN(NodePointer found, adopt(up(directory.fd.get()).release()));
  // The root must be on the way up, or the host has moved the directory elsewhere.
  base::UniqueFd above(::dup(found->fd.get()));
  struct stat status{};
  for (int depth = 0; depth < kMaxDepth && above.valid(); ++depth) {
    struct stat below = status;
    if (::fstat(above.get(), &status) != 0) return refuse_errno();
    if (root.is(status)) return found;
    if (depth != 0 && below.st_dev == status.st_dev && below.st_ino == status.st_ino) break;
    above = up(above.get());
  }
  return refuse(ESTALE);
}

Outcome<HeldFd> Nodes::create_file(const Node& directory, const std::string& name, int flags,
                                   u32 mode) {
  TRY(want_descriptor());
  const int fd = open_beneath(directory.fd.get(), name.c_str(),
                              flags | O_CREAT | O_EXCL | O_NOFOLLOW | O_NOCTTY, mode);
  if (fd < 0) return refuse_errno();
  return HeldFd(base::UniqueFd(fd), budget_);
}

Outcome<HeldFd> Nodes::open(const Node& node, int flags) {
  if (node.kind != S_IFREG && node.kind != S_IFDIR)
    return refuse(node.kind == S_IFLNK ? ELOOP : EACCES);
  TRY(want_descriptor());
  // O_NONBLOCK only keeps mandatory locks and leases of the host from blocking us.
  const std::string name = std::to_string(node.fd.get());
  const int fd = ::openat(proc_.get(), name.c_str(), flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  if (fd < 0) return refuse_errno();
  return HeldFd(base::UniqueFd(fd), budget_);
}

Outcome<NodePointer> Nodes::node_of(int fd) {
  TRY(want_descriptor());
  return adopt(::openat(proc_.get(), std::to_string(fd).c_str(), O_PATH | O_CLOEXEC));
}

std::string Nodes::path_of(const Node& node) {
  return "/proc/self/fd/" + std::to_string(node.fd.get());
}

Outcome<struct stat> status_of(const Node& node) {
  struct stat status{};
  if (::fstat(node.fd.get(), &status) != 0) return refuse_errno();
  return status;
}

}  // namespace smol::share

// A host file that is held, not opened, and the only ways to get to another one.
//
// A node is an O_PATH descriptor: it names one inode for good, whatever happens to the names above
// it, and having it opens nothing (a FIFO does not block, a device does not notice). Steps go one
// name at a time through openat2(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS), so
// neither a symbolic link nor a race can lead elsewhere; a link itself is held as a link. To open
// for reading or writing, the node's own inode is opened again through /proc/self/fd, after its
// kind was looked at: no name is resolved a second time.
//
// Errors are errno values for the guest. Threads: callers take turns (the server's mutex).
#pragma once

#include <sys/stat.h>

#include <memory>
#include <string>
#include <string_view>

#include "base/fd.h"
#include "share/errno.h"

namespace smol::share {

// The descriptors that one server may hold, so that a guest cannot use up the monitor's.
struct DescriptorBudget {
  u32 used = 0;
  u32 limit = 0;
};

// A descriptor that is counted.
class HeldFd {
 public:
  HeldFd() = default;
  HeldFd(base::UniqueFd fd, DescriptorBudget& budget) : fd_(std::move(fd)), budget_(&budget) {
    ++budget.used;
  }
  HeldFd(HeldFd&& other) noexcept
      : fd_(std::move(other.fd_)), budget_(std::exchange(other.budget_, nullptr)) {}
  HeldFd& operator=(HeldFd&& other) noexcept {
    if (this != &other) {
      reset();
      fd_ = std::move(other.fd_);
      budget_ = std::exchange(other.budget_, nullptr);
    }
    return *this;
  }
  ~HeldFd() { reset(); }

  int get() const { return fd_.get(); }
  bool valid() const { return fd_.valid(); }
  void reset() {
    fd_.reset();
    if (budget_ != nullptr) --std::exchange(budget_, nullptr)->used;
  }

 private:
  base::UniqueFd fd_;
  DescriptorBudget* budget_ = nullptr;
};

struct Node {
  HeldFd fd;       // O_PATH
  u64 device = 0;  // these two say which inode it is
  u64 inode = 0;
  u32 kind = 0;  // S_IFREG, S_IFDIR, ...

  bool is_directory() const { return kind == S_IFDIR; }
  bool is(const struct stat& status) const {
    return device == status.st_dev && inode == status.st_ino;
  }
};
// Shared: files of one folder hold it together, for as long as one of them may be removed or
// renamed by its fid.
using NodePointer = std::shared_ptr<const Node>;

class Nodes {
 public:
  static constexpr std::size_t kMaxName = 255;  // bytes

  // Opens /proc/self/fd for good. limit: descriptors held at the same time.
  static Result<std::unique_ptr<Nodes>> create(u32 limit);

  // A share's own root: the path is the user's and may go through links. Not a directory: an Error.
  Result<NodePointer> open_root(const std::string& path);

  // name: one component, checked by check_name().
  Outcome<NodePointer> child(const Node& directory, std::string_view name);
  // The folder above; root: ends the way up. ESTALE when directory is no longer beneath root.
  Outcome<NodePointer> parent(const Node& directory, const Node& root);
  // Creates a regular file that was not there and opens it.
  Outcome<HeldFd> create_file(const Node& directory, const std::string& name, int flags, u32 mode);
  // Opens the node's inode; only regular files and directories, EACCES else. flags: of open(2).
  Outcome<HeldFd> open(const Node& node, int flags);
  // An O_PATH node for what fd has open.
  Outcome<NodePointer> node_of(int fd);

  // "/proc/self/fd/N" for calls that want a path of the node itself.
  static std::string path_of(const Node& node);
  int proc_fd() const { return proc_.get(); }

  const DescriptorBudget& budget() const { return budget_; }

  // One component that can be created or looked up: not empty, not "." or "..", no slash, no NUL
  // (EINVAL), at most kMaxName bytes (ENAMETOOLONG).
  static Outcome<std::string> check_name(std::string_view name);

 private:
  Outcome<> want_descriptor() const;
  Outcome<NodePointer> adopt(int fd);

  base::UniqueFd proc_;
  DescriptorBudget budget_;
};

Outcome<struct stat> status_of(const Node& node);

}  // namespace smol::share

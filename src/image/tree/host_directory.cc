// Reading a directory of the host: metadata now, contents when the tree is written.
#include "image/tree/host_directory.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <map>

#include "base/directory.h"

namespace smol::image {
namespace {

bool kept_xattr(std::string_view name) {
  return (name.starts_with("user.") && !name.starts_with("user.overlay.")) ||
         name == "security.capability" || name.starts_with("system.posix_acl_");
}

Result<> read_xattrs(const std::string& path, Attributes& attributes) {
  std::vector<char> names(64 * kKiB);
  const ssize_t size = ::llistxattr(path.c_str(), names.data(), names.size());
  if (size < 0) {
    if (errno == ENOTSUP || errno == EACCES || errno == EPERM) return {};
    return fail_errno("cannot list the extended attributes of {}", path);
  }
  for (ssize_t at = 0; at < size; at += static_cast<ssize_t>(std::strlen(names.data() + at)) + 1) {
    const char* const name = names.data() + at;
    if (!kept_xattr(name)) continue;
    std::string value(kMaxXattrBytes, '\0');
    const ssize_t got = ::lgetxattr(path.c_str(), name, value.data(), value.size());
    if (got < 0) return fail_errno("cannot read {} of {}", name, path);
    value.resize(static_cast<std::size_t>(got));
    attributes.xattrs.emplace(name, std::move(value));
  }
  return {};
}

class Adder {
 public:
  explicit Adder(Tree& tree) : tree_(tree), owners_(::geteuid() == 0) {}
  Result<> add(const std::string& host, const std::string& at);

 private:
  Result<> add_one(const std::string& host, const std::string& at, const struct stat& status);
  Result<Attributes> attributes(const std::string& host, const struct stat& status);
  Result<> find_data(const std::string& host, u64 blocks, Node& node);

  Tree& tree_;
  const bool owners_;
  std::map<std::pair<u64, u64>, NodeId> links_;  // (device, inode) of files with several names
};

Result<Attributes> Adder::attributes(const std::string& host, const struct stat& status) {
  Attributes attributes{.mode = static_cast<u16>(status.st_mode & 07777),
                        .uid = owners_ ? status.st_uid : 0,
                        .gid = owners_ ? status.st_gid : 0,
                        .mtime = {status.st_mtim.tv_sec, static_cast<u32>(status.st_mtim.tv_nsec)}};
  TRY(read_xattrs(host, attributes));
  return attributes;
}

// One extent, or several where the file has holes.
Result<> Adder::find_data(const std::string& host, u64 blocks, Node& node) {
  if (node.size == 0) return {};
  const u32 source = tree_.add_source(path_source(host));
  if (blocks * 512 >= node.size) {
    node.extents.push_back({0, node.size, source, 0});
    return {};
  }
  TRY_ASSIGN(const base::UniqueFd fd, base::open_file(host, O_RDONLY | O_NOFOLLOW));
  for (u64 at = 0; at < node.size;) {
    const off_t data = ::lseek(fd.get(), static_cast<off_t>(at), SEEK_DATA);
    if (data < 0 && errno == ENXIO) break;  // only a hole is left
    const off_t hole = data < 0 ? -1 : ::lseek(fd.get(), data, SEEK_HOLE);
    if (hole < 0) return fail_errno("cannot find the holes of {}", host);
    const u64 start = std::min(static_cast<u64>(data), node.size),
              end = std::min(static_cast<u64>(hole), node.size);
    if (end > start) node.extents.push_back({start, end - start, source, start});
    at = static_cast<u64>(hole);
  }
  return {};
}

Result<> Adder::add_one(const std::string& host, const std::string& at, const struct stat& status) {
  Node node;
  TRY_ASSIGN(static_cast<Attributes&>(node), attributes(host, status));
  const std::pair<u64, u64> identity(status.st_dev, status.st_ino);
  const bool several = status.st_nlink > 1 && !S_ISDIR(status.st_mode);
  if (const auto known = links_.find(identity); several && known != links_.end()) {
    TRY_ASSIGN(const Tree::Place place, tree_.resolve_parent(at, Tree::Missing::kMake));
    tree_.erase(place.directory, place.name);
    return tree_.link(place.directory, place.name, known->second);
  }
  if (S_ISDIR(status.st_mode)) {
    node.kind = NodeKind::kDirectory;
  } else if (S_ISREG(status.st_mode)) {
    node.size = static_cast<u64>(status.st_size);
    TRY(find_data(host, static_cast<u64>(status.st_blocks), node));
  } else if (S_ISLNK(status.st_mode)) {
    node.kind = NodeKind::kSymlink;
    node.target.resize(kMaxLinkBytes + 1);
    const ssize_t got = ::readlink(host.c_str(), node.target.data(), node.target.size());
    if (got < 0) return fail_errno("cannot read the link {}", host);
    node.target.resize(static_cast<std::size_t>(got));
  } else if (S_ISCHR(status.st_mode) || S_ISBLK(status.st_mode)) {
    node.kind = S_ISCHR(status.st_mode) ? NodeKind::kCharacter : NodeKind::kBlock;
    node.device_major = major(status.st_rdev);
    node.device_minor = minor(status.st_rdev);
  } else {
    node.kind = S_ISFIFO(status.st_mode) ? NodeKind::kFifo : NodeKind::kSocket;
  }
  TRY_ASSIGN(const NodeId id, tree_.add_node(at, std::move(node)));
  if (several) links_.emplace(identity, id);
  return {};
}

Result<> Adder::add(const std::string& host, const std::string& at) {
  std::vector<std::pair<std::string, std::string>> left{{host, at}};
  while (!left.empty()) {
    const auto [from, to] = std::move(left.back());
    left.pop_back();
    TRY_ASSIGN(const auto names, base::names_in(from));
    for (const std::string& name : names) {
      const std::string path = from + "/" + name, inside = to + "/" + name;
      struct stat status{};
      if (::lstat(path.c_str(), &status) != 0) return fail_errno("cannot stat {}", path);
      if (const auto done = add_one(path, inside, status); !done)
        return wrap(done.error(), "{}", path);
      if (S_ISDIR(status.st_mode)) left.emplace_back(path, inside);
    }
  }
  return {};
}

}  // namespace

Result<> add_host_directory(Tree& tree, const std::string& host, std::string_view at) {
  struct stat status{};
  if (::stat(host.c_str(), &status) != 0) return fail_errno("cannot stat {}", host);
  if (!S_ISDIR(status.st_mode)) return fail("{} is not a directory", host);
  Attributes attributes{.mode = static_cast<u16>(status.st_mode & 07777),
                        .mtime = {status.st_mtim.tv_sec, static_cast<u32>(status.st_mtim.tv_nsec)}};
  if (::geteuid() == 0) attributes.uid = status.st_uid, attributes.gid = status.st_gid;
  TRY(read_xattrs(host, attributes));
  TRY(tree.add_directory(at, std::move(attributes)));
  return Adder(tree).add(host, std::string(at == "/" ? "" : at));
}

}  // namespace smol::image

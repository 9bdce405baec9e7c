// Writing a tree into a directory of the host. Every directory on the way was made by us a moment
// before, so no link can lead out of it; modes and times of directories are set last, since a
// directory without the right to write takes no files.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <map>

#include "image/tree/erofs_format.h"
#include "image/tree/host_directory.h"

namespace smol::image {
namespace {

class DirectoryWriter {
 public:
  DirectoryWriter(const Tree& tree, std::string host)
      : tree_(tree), host_(std::move(host)), root_(::geteuid() == 0) {}
  Result<WrittenDirectory> write();

 private:
  Result<> write_node(const std::string& path, NodeId id);
  Result<> write_file(const std::string& path, NodeId id);
  Result<> set_attributes(const std::string& path, const Node& node);

  const Tree& tree_;
  const std::string host_;
  const bool root_;
  WrittenDirectory written_;
  std::map<NodeId, std::string> links_;  // the first path of nodes with several
};

Result<> DirectoryWriter::write_file(const std::string& path, NodeId id) {
  const Node& node = tree_.node(id);
  TRY_ASSIGN(const base::UniqueFd fd,
             base::open_file(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600));
  if (::ftruncate(fd.get(), static_cast<off_t>(node.size)) != 0)
    return fail_errno("cannot write {}", path);
  std::vector<u8> buffer(std::min<u64>(node.size, 1 * kMiB));
  for (const Extent& extent : node.extents) {
    for (u64 done = 0; done < extent.size;) {
      const ByteSpan part(buffer.data(), std::min<u64>(buffer.size(), extent.size - done));
      TRY(tree_.read_at(id, extent.offset + done, part));
      TRY(base::write_all_at(fd.get(), part, extent.offset + done, path));
      done += part.size();
    }
  }
  return {};
}

Result<> DirectoryWriter::set_attributes(const std::string& path, const Node& node) {
  if (root_ && ::lchown(path.c_str(), node.uid, node.gid) != 0)
    return fail_errno("cannot set the owner of {}", path);
  for (const auto& [name, value] : node.xattrs)
    if (::lsetxattr(path.c_str(), name.c_str(), value.data(), value.size(), 0) != 0)
      ++written_.skipped_xattrs;
  if (node.kind != NodeKind::kSymlink && ::chmod(path.c_str(), node.mode) != 0)
    return fail_errno("cannot set the mode of {}", path);
  const timespec times[2] = {{node.mtime.seconds, node.mtime.nanoseconds},
                             {node.mtime.seconds, node.mtime.nanoseconds}};
  if (::utimensat(AT_FDCWD, path.c_str(), times, AT_SYMLINK_NOFOLLOW) != 0)
    return fail_errno("cannot set the time of {}", path);
  return {};
}

Result<> DirectoryWriter::write_node(const std::string& path, NodeId id) {
  const Node& node = tree_.node(id);
  if (node.links > 1) {
    const auto [known, added] = links_.emplace(id, path);
    if (!added) {
      if (::access(known->second.c_str(), F_OK) != 0 && node.kind != NodeKind::kSymlink)
        return {};  // a device that was skipped
      if (::linkat(AT_FDCWD, known->second.c_str(), AT_FDCWD, path.c_str(), 0) != 0)
        return fail_errno("cannot link {}", path);
      return {};
    }
  }
  switch (node.kind) {
    case NodeKind::kDirectory:
      if (::mkdir(path.c_str(), 0700) != 0) return fail_errno("cannot make the directory {}", path);
      return {};
    case NodeKind::kFile:
      TRY(write_file(path, id));
      break;
    case NodeKind::kSymlink:
      if (::symlink(node.target.c_str(), path.c_str()) != 0)
        return fail_errno("cannot make the link {}", path);
      break;
    case NodeKind::kCharacter:
    case NodeKind::kBlock:
      if (!root_) {
        ++written_.skipped_devices;
        return {};
      }
      [[fallthrough]];
    case NodeKind::kFifo:
    case NodeKind::kSocket:
      if (::mknod(path.c_str(), erofs::type_bits(node.kind) | 0600,
                  makedev(node.device_major, node.device_minor)) != 0)
        return fail_errno("cannot make the {} {}", name_of(node.kind), path);
      break;
  }
  return set_attributes(path, node);
}

Result<WrittenDirectory> DirectoryWriter::write() {
  if (::mkdir(host_.c_str(), 0700) != 0 && errno != EEXIST)
    return fail_errno("cannot make the directory {}", host_);
  if (::rmdir(host_.c_str()) != 0 || ::mkdir(host_.c_str(), 0700) != 0)
    return fail_errno("{} is not an empty directory", host_);
  std::vector<std::pair<std::string, NodeId>> directories{{host_, Tree::kRoot}};
  TRY(tree_.walk([&](const std::string& path, NodeId id) -> Result<> {
    if (tree_.node(id).is_directory()) directories.emplace_back(host_ + path, id);
    return write_node(host_ + path, id);
  }));
  for (auto at = directories.rbegin(); at != directories.rend(); ++at)
    TRY(set_attributes(at->first, tree_.node(at->second)));
  return written_;
}

}  // namespace

Result<WrittenDirectory> write_directory(const Tree& tree, const std::string& host) {
  return DirectoryWriter(tree, host).write();
}

}  // namespace smol::image

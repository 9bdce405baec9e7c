// Names: making, linking, moving and removing them.
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <climits>

#include "share/server.h"

namespace smol::share {

// The reply of what made a name.
Outcome<> Server::put_qid_of(const Place& directory, const std::string& name, Call& call) {
  struct stat status{};
  if (::fstatat(directory.node->fd.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0)
    return refuse_errno();
  call.out.put_qid(qid_of(status));
  return {};
}

Outcome<> Server::symlink(Call& call) {
  const u32 number = call.in.take<u32>();
  const std::string_view wanted = call.in.text();
  const std::string target(call.in.text());
  const u32 gid = call.in.take<u32>();
  if (!call.in.complete() || target.find('\0') != std::string::npos) return refuse(EINVAL);
  if (target.size() >= PATH_MAX) return refuse(ENAMETOOLONG);
  TRY_ASSIGN(Fid* const fid, find_directory(number, Access::kWrite));
  TRY_ASSIGN(const std::string name, Nodes::check_name(wanted));
  {
    const CreatingAs creating(fid->place.share->ownership, fid->uid, gid);
    if (!creating.ok()) return refuse(EPERM);
    if (::symlinkat(target.c_str(), fid->place.node->fd.get(), name.c_str()) != 0)
      return refuse_errno();
  }
  return put_qid_of(fid->place, name, call);
}

// FIFOs, sockets and empty regular files. A device node would be a door on the host.
Outcome<> Server::mknod(Call& call) {
  const u32 number = call.in.take<u32>();
  const std::string_view wanted = call.in.text();
  const u32 mode = call.in.take<u32>();
  call.in.take<u32>();  // major
  call.in.take<u32>();  // minor
  const u32 gid = call.in.take<u32>();
  if (!call.in.complete()) return refuse(EINVAL);
  TRY_ASSIGN(Fid* const fid, find_directory(number, Access::kWrite));
  TRY_ASSIGN(const std::string name, Nodes::check_name(wanted));
  const u32 kind = mode & S_IFMT;
  if (kind == S_IFCHR || kind == S_IFBLK) return refuse(EPERM);
  if (kind != S_IFIFO && kind != S_IFSOCK && kind != S_IFREG && kind != 0) return refuse(EINVAL);
  const Ownership& ownership = fid->place.share->ownership;
  {
    const CreatingAs creating(ownership, fid->uid, gid);
    if (!creating.ok()) return refuse(EPERM);
    if (::mknodat(fid->place.node->fd.get(), name.c_str(), kind | ownership.host_mode(mode, false),
                  0) != 0)
      return refuse_errno();
  }
  return put_qid_of(fid->place, name, call);
}

Outcome<> Server::mkdir(Call& call) {
  const u32 number = call.in.take<u32>();
  const std::string_view wanted = call.in.text();
  const u32 mode = call.in.take<u32>();
  const u32 gid = call.in.take<u32>();
  if (!call.in.complete()) return refuse(EINVAL);
  TRY_ASSIGN(Fid* const fid, find_directory(number, Access::kWrite));
  TRY_ASSIGN(const std::string name, Nodes::check_name(wanted));
  const Ownership& ownership = fid->place.share->ownership;
  {
    const CreatingAs creating(ownership, fid->uid, gid);
    if (!creating.ok()) return refuse(EPERM);
    if (::mkdirat(fid->place.node->fd.get(), name.c_str(), ownership.host_mode(mode, true)) != 0)
      return refuse_errno();
  }
  return put_qid_of(fid->place, name, call);
}

Outcome<> Server::link(Call& call) {
  const u32 directory_number = call.in.take<u32>();
  const u32 number = call.in.take<u32>();
  const std::string_view wanted = call.in.text();
  if (!call.in.complete()) return refuse(EINVAL);
  TRY_ASSIGN(Fid* const directory, find_directory(directory_number, Access::kWrite));
  TRY_ASSIGN(Fid* const fid, find_host(number, Access::kRead));
  if (fid->place.share != directory->place.share) return refuse(EXDEV);
  TRY_ASSIGN(const std::string name, Nodes::check_name(wanted));
  if (fid->place.node->is_directory()) return refuse(EPERM);
  // The inode that the fid holds, whatever its name says now.
  const std::string held = std::to_string(fid->place.node->fd.get());
  if (::linkat(nodes_->proc_fd(), held.c_str(), directory->place.node->fd.get(), name.c_str(),
               AT_SYMLINK_FOLLOW) != 0)
    return refuse_errno();
  return {};
}

// The fid's own name still belongs to its inode; otherwise somebody has put another file there.
Outcome<> Server::still_named(const Place& place) const {
  if (!place.parent) return refuse(EBUSY);  // a share's root
  struct stat status{};
  if (::fstatat(place.parent->fd.get(), place.name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0)
    return refuse_errno();
  if (!place.node->is(status)) return refuse(ESTALE);
  return {};
}

Outcome<> Server::rename(Call& call) {
  const u32 number = call.in.take<u32>();
  const u32 directory_number = call.in.take<u32>();
  const std::string_view wanted = call.in.text();
  if (!call.in.complete()) return refuse(EINVAL);
  TRY_ASSIGN(Fid* const fid, find_host(number, Access::kWrite));
  TRY_ASSIGN(Fid* const directory, find_directory(directory_number, Access::kWrite));
  if (fid->place.share != directory->place.share) return refuse(EXDEV);
  TRY_ASSIGN(const std::string name, Nodes::check_name(wanted));
  TRY(still_named(fid->place));
  if (::renameat(fid->place.parent->fd.get(), fid->place.name.c_str(),
                 directory->place.node->fd.get(), name.c_str()) != 0)
    return refuse_errno();
  fid->place.parent = directory->place.node;
  fid->place.name = name;
  return {};
}

Outcome<> Server::rename_at(Call& call) {
  const u32 from_number = call.in.take<u32>();
  const std::string_view from_wanted = call.in.text();
  const u32 to_number = call.in.take<u32>();
  const std::string_view to_wanted = call.in.text();
  if (!call.in.complete()) return refuse(EINVAL);
  TRY_ASSIGN(Fid* const from, find_directory(from_number, Access::kWrite));
  TRY_ASSIGN(Fid* const to, find_directory(to_number, Access::kWrite));
  if (from->place.share != to->place.share) return refuse(EXDEV);
  TRY_ASSIGN(const std::string from_name, Nodes::check_name(from_wanted));
  TRY_ASSIGN(const std::string to_name, Nodes::check_name(to_wanted));
  if (::renameat(from->place.node->fd.get(), from_name.c_str(), to->place.node->fd.get(),
                 to_name.c_str()) != 0)
    return refuse_errno();
  return {};
}

Outcome<> Server::unlink_at(Call& call) {
  const u32 number = call.in.take<u32>();
  const std::string_view wanted = call.in.text();
  const u32 flags = call.in.take<u32>();
  if (!call.in.complete() || (flags & ~u32{AT_REMOVEDIR}) != 0) return refuse(EINVAL);
  TRY_ASSIGN(Fid* const fid, find_directory(number, Access::kWrite));
  TRY_ASSIGN(const std::string name, Nodes::check_name(wanted));
  if (::unlinkat(fid->place.node->fd.get(), name.c_str(), static_cast<int>(flags)) != 0)
    return refuse_errno();
  return {};
}

// remove(5): the fid is gone afterwards, whether the file is or not.
Outcome<> Server::remove_file(Call& call) {
  const u32 number = call.in.take<u32>();
  TRY(find(number));
  const auto removed = [&]() -> Outcome<> {
    TRY_ASSIGN(Fid* const fid, find_host(number, Access::kWrite));
    TRY(still_named(fid->place));
    if (::unlinkat(fid->place.parent->fd.get(), fid->place.name.c_str(),
                   fid->place.node->is_directory() ? AT_REMOVEDIR : 0) != 0)
      return refuse_errno();
    return {};
  }();
  drop_fid(number);
  return removed;
}

Outcome<> Server::readlink(Call& call) {
  const u32 number = call.in.take<u32>();
  TRY_ASSIGN(Fid* const fid, find_host(number, Access::kRead));
  if (fid->place.node->kind != S_IFLNK) return refuse(EINVAL);
  char target[PATH_MAX];
  const ssize_t size = ::readlinkat(fid->place.node->fd.get(), "", target, sizeof(target));
  if (size < 0) return refuse_errno();
  call.out.put_text({target, static_cast<std::size_t>(size)});
  return {};
}

}  // namespace smol::share

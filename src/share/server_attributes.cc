// Attributes: status, changes of it, file systems, extended attributes.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/time.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "share/server.h"

namespace smol::share {
namespace {

constexpr u64 kBasicAttributes = 0x7ff;  // P9_STATS_BASIC: all but the birth time and generation
constexpr u32 kMagic = 0x01021997;       // V9FS_MAGIC (linux/magic.h)
constexpr u32 kBlockSize = 4096;

// What Tsetattr changes (Linux, fs/9p/vfs_inode_dotl.c, P9_ATTR_*).
enum SetAttribute : u32 {
  kSetMode = 1 << 0,
  kSetUid = 1 << 1,
  kSetGid = 1 << 2,
  kSetSize = 1 << 3,
  kSetAccessTime = 1 << 4,
  kSetModifyTime = 1 << 5,
  kSetChangeTime = 1 << 6,
  kAccessTimeGiven = 1 << 7,
  kModifyTimeGiven = 1 << 8,
};

struct NewAttributes {
  u32 valid, mode, uid, gid;
  u64 size, access_seconds, access_nanoseconds, modify_seconds, modify_nanoseconds;
};

NewAttributes take_attributes(Decoder& in) {
  NewAttributes wanted{};
  wanted.valid = in.take<u32>();
  wanted.mode = in.take<u32>();
  wanted.uid = in.take<u32>();
  wanted.gid = in.take<u32>();
  wanted.size = in.take<u64>();
  wanted.access_seconds = in.take<u64>();
  wanted.access_nanoseconds = in.take<u64>();
  wanted.modify_seconds = in.take<u64>();
  wanted.modify_nanoseconds = in.take<u64>();
  return wanted;
}

void put_time(Encoder& out, const timespec& time) {
  out.put(static_cast<u64>(time.tv_sec));
  out.put(static_cast<u64>(time.tv_nsec));
}

timespec time_of(bool set, bool given, u64 seconds, u64 nanoseconds) {
  timespec time{};
  time.tv_sec = static_cast<time_t>(seconds);
  time.tv_nsec = !set ? UTIME_OMIT : !given ? UTIME_NOW : static_cast<long>(nanoseconds);
  return time;
}

Outcome<> change_owner(const Node& node, const Ownership& ownership, const NewAttributes& wanted) {
  if ((wanted.valid & (kSetUid | kSetGid)) == 0) return {};
  TRY_ASSIGN(const struct stat now, status_of(node));
  u32 uid = kKeepOwner, gid = kKeepOwner;
  if ((wanted.valid & kSetUid) != 0) {
    TRY_ASSIGN(uid, ownership.host_uid(wanted.uid, now.st_uid));
  }
  if ((wanted.valid & kSetGid) != 0) {
    TRY_ASSIGN(gid, ownership.host_gid(wanted.gid, now.st_gid));
  }
  if (uid == kKeepOwner && gid == kKeepOwner) return {};
  if (::fchownat(node.fd.get(), "", uid, gid, AT_EMPTY_PATH) != 0) return refuse_errno();
  return {};
}

Outcome<> change_times(const Node& node, const NewAttributes& wanted) {
  if ((wanted.valid & (kSetAccessTime | kSetModifyTime)) == 0) return {};
  constexpr u64 kSecond = 1'000'000'000;
  if (wanted.access_nanoseconds >= kSecond || wanted.modify_nanoseconds >= kSecond)
    return refuse(EINVAL);
  const timespec times[2] = {
      time_of((wanted.valid & kSetAccessTime) != 0, (wanted.valid & kAccessTimeGiven) != 0,
              wanted.access_seconds, wanted.access_nanoseconds),
      time_of((wanted.valid & kSetModifyTime) != 0, (wanted.valid & kModifyTimeGiven) != 0,
              wanted.modify_seconds, wanted.modify_nanoseconds)};
  if (::utimensat(node.fd.get(), "", times, AT_EMPTY_PATH) != 0) return refuse_errno();
  return {};
}

// Only these reach the host: others carry privileges there, or belong to other programs.
bool is_served(std::string_view name) {
  return name.starts_with("user.") && name.size() > 5 && name.size() <= Nodes::kMaxName &&
         name.find('\0') == std::string_view::npos;
}

bool may_have_xattrs(const Node& node) { return node.kind == S_IFREG || node.kind == S_IFDIR; }

// The names of a list that are served, each with its NUL.
std::string served_names(std::string_view list) {
  std::string kept;
  while (!list.empty()) {
    const std::size_t end = std::min(list.find('\0'), list.size() - 1);
    if (is_served(list.substr(0, end))) kept.append(list.substr(0, end + 1));
    list.remove_prefix(end + 1);
  }
  return kept;
}

Outcome<std::string> read_xattr(const Node& node, const std::string& name) {
  std::string value(Server::kMaxXattr, 0);
  const std::string path = Nodes::path_of(node);
  const ssize_t size = name.empty()
                           ? ::listxattr(path.c_str(), value.data(), value.size())
                           : ::getxattr(path.c_str(), name.c_str(), value.data(), value.size());
  if (size < 0) return refuse_errno();
  value.resize(static_cast<std::size_t>(size));
  return name.empty() ? served_names(value) : value;
}

}  // namespace

Outcome<> Server::getattr(Call& call) {
  const u32 number = call.in.take<u32>();
  call.in.take<u64>();  // mask: all that is basic costs the same
  if (!call.in.complete()) return refuse(EINVAL);
  TRY_ASSIGN(Fid* const fid, find(number));
  struct stat status{};
  Qid qid = root_qid();
  u32 uid = 0, gid = 0;
  if (!fid->place.share) {
    status.st_mode = S_IFDIR | 0555;
    status.st_nlink = 2 + shares_.size();
    status.st_blksize = kBlockSize;
  } else {
    TRY(find_host(number, Access::kRead));
    TRY_ASSIGN(status, status_of(*fid->place.node));
    qid = qid_of(status);
    uid = fid->place.share->ownership.shown_uid(status.st_uid);
    gid = fid->place.share->ownership.shown_gid(status.st_gid);
  }
  call.out.put(kBasicAttributes);
  call.out.put_qid(qid);
  call.out.put(static_cast<u32>(status.st_mode));
  call.out.put(uid);
  call.out.put(gid);
  for (const u64 value : {static_cast<u64>(status.st_nlink), static_cast<u64>(status.st_rdev),
                          static_cast<u64>(status.st_size), static_cast<u64>(status.st_blksize),
                          static_cast<u64>(status.st_blocks)})
    call.out.put(value);
  put_time(call.out, status.st_atim);
  put_time(call.out, status.st_mtim);
  put_time(call.out, status.st_ctim);
  put_time(call.out, {});  // birth
  call.out.put(u64{0});    // generation
  call.out.put(u64{0});    // data version
  return {};
}

Outcome<> Server::setattr(Call& call) {
  const u32 number = call.in.take<u32>();
  const NewAttributes wanted = take_attributes(call.in);
  if (!call.in.complete()) return refuse(EINVAL);
  TRY_ASSIGN(Fid* const fid, find_host(number, Access::kWrite));
  const Node& node = *fid->place.node;
  const Ownership& ownership = fid->place.share->ownership;
  // Owner before mode: a change of owner takes set-user-ID bits away.
  TRY(change_owner(node, ownership, wanted));
  if ((wanted.valid & kSetMode) != 0) {
    if (node.kind == S_IFLNK) return refuse(EOPNOTSUPP);
    const u32 mode = ownership.host_mode(wanted.mode, node.is_directory());
    if (::chmod(Nodes::path_of(node).c_str(), mode) != 0) return refuse_errno();
  }
  if ((wanted.valid & kSetSize) != 0) {
    if (node.is_directory()) return refuse(EISDIR);
    if (node.kind != S_IFREG || wanted.size > static_cast<u64>(INT64_MAX)) return refuse(EINVAL);
    const auto size = static_cast<off_t>(wanted.size);
    const bool open_for_writing = fid->is_open && (fid->flags & O_ACCMODE) != O_RDONLY;
    if ((open_for_writing ? ::ftruncate(fid->file.get(), size)
                          : ::truncate(Nodes::path_of(node).c_str(), size)) != 0)
      return refuse_errno();
  }
  return change_times(node, wanted);
}

Outcome<> Server::statfs(Call& call) {
  const u32 number = call.in.take<u32>();
  TRY_ASSIGN(Fid* const fid, find(number));
  struct statfs status{};
  status.f_bsize = kBlockSize;
  if (fid->place.share) {
    TRY(find_host(number, Access::kRead));
    if (::fstatfs(fid->place.node->fd.get(), &status) != 0) return refuse_errno();
  }
  call.out.put(kMagic);
  call.out.put(static_cast<u32>(status.f_bsize));
  for (const u64 value : {static_cast<u64>(status.f_blocks), static_cast<u64>(status.f_bfree),
                          static_cast<u64>(status.f_bavail), static_cast<u64>(status.f_files),
                          static_cast<u64>(status.f_ffree)})
    call.out.put(value);
  call.out.put(u64{0});  // the host's file system ID stays there
  call.out.put(static_cast<u32>(Nodes::kMaxName));
  return {};
}

// Makes new_fid, whose content is the attribute's value, or with an empty name the list of names.
Outcome<> Server::xattr_walk(Call& call) {
  const u32 number = call.in.take<u32>();
  const u32 new_number = call.in.take<u32>();
  const std::string name(call.in.text());
  if (!call.in.complete()) return refuse(EINVAL);
  TRY_ASSIGN(Fid* const fid, find(number));
  if (new_number == number || fids_.contains(new_number)) return refuse(EBADF);
  if (!name.empty() && !is_served(name)) return refuse(ENODATA);
  std::string value;
  if (fid->place.share) {
    TRY(find_host(number, Access::kRead));
    if (may_have_xattrs(*fid->place.node)) {
      TRY_ASSIGN(value, read_xattr(*fid->place.node, name));
    } else if (!name.empty()) {
      return refuse(ENODATA);
    }
  } else if (!name.empty()) {
    return refuse(ENODATA);
  }
  if (value.size() > kMaxXattrTotal - xattr_bytes_) return refuse(ENOMEM);
  const Place place = fid->place;
  TRY_ASSIGN(Fid* const made, new_fid(new_number, place, fid->uid));
  made->xattr = std::make_unique<Xattr>(Xattr{.name = name, .size = value.size(), .value = value});
  xattr_bytes_ += value.size();
  call.out.put(static_cast<u64>(value.size()));
  return {};
}

// Turns the fid into one that takes the attribute's value by Twrite and sets it at Tclunk.
Outcome<> Server::xattr_create(Call& call) {
  const u32 number = call.in.take<u32>();
  const std::string name(call.in.text());
  const u64 size = call.in.take<u64>();
  const u32 flags = call.in.take<u32>();
  if (!call.in.complete() || (flags & ~u32{XATTR_CREATE | XATTR_REPLACE}) != 0)
    return refuse(EINVAL);
  TRY_ASSIGN(Fid* const fid, find_host(number, Access::kWrite));
  if (fid->is_open || fid->xattr) return refuse(EBADF);
  if (!is_served(name)) return refuse(EOPNOTSUPP);
  if (!may_have_xattrs(*fid->place.node)) return refuse(EPERM);
  if (size > kMaxXattr) return refuse(E2BIG);
  if (size > kMaxXattrTotal - xattr_bytes_) return refuse(ENOMEM);
  fid->xattr = std::make_unique<Xattr>(
      Xattr{.writes = true, .name = name, .flags = static_cast<int>(flags), .size = size});
  xattr_bytes_ += size;
  return {};
}

Outcome<> Server::finish_xattr(const Fid& fid) {
  const Xattr& xattr = *fid.xattr;
  if (fid.place.share->removed) return refuse(ESTALE);
  if (xattr.filled != xattr.size) return refuse(EINVAL);
  const std::string path = Nodes::path_of(*fid.place.node);
  // Linux asks for a removal as an empty value that must replace one.
  const int done = xattr.size == 0 && xattr.flags == XATTR_REPLACE
                       ? ::removexattr(path.c_str(), xattr.name.c_str())
                       : ::setxattr(path.c_str(), xattr.name.c_str(), xattr.value.data(),
                                    xattr.size, xattr.flags);
  if (done != 0) return refuse_errno();
  return {};
}

}  // namespace smol::share

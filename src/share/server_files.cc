// Open files: opening and creating, data, flushing, locks.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include "share/server.h"

namespace smol::share {
namespace {

// Open flags as Linux' 9P client sends them (include/net/9p/9p.h, enum p9_open_flags). Others are
// about the guest's own descriptor, or cannot be honoured (direct I/O of any alignment).
enum OpenFlag : u32 {
  kAccess = 3,
  kExclusive = 0200,
  kTruncate = 01000,
  kAppend = 02000,
  kDataSync = 010000,
  kDirectory = 0200000,
  kSync = 04000000,
};

int host_flags(u32 flags) {
  int host = static_cast<int>(flags & kAccess);
  if ((flags & kTruncate) != 0) host |= O_TRUNC;
  if ((flags & kAppend) != 0) host |= O_APPEND;
  if ((flags & kSync) != 0) host |= O_SYNC;
  if ((flags & kDataSync) != 0) host |= O_DSYNC;
  return host;
}

bool wants_write(u32 flags) { return (flags & kAccess) != O_RDONLY || (flags & kTruncate) != 0; }

// Lock types and answers (include/net/9p/9p.h).
enum LockType : u8 { kReadLock = 0, kWriteLock = 1, kUnlock = 2 };
enum LockStatus : u8 { kLockSuccess = 0, kLockBlocked = 1 };

short host_lock(u8 type) {
  if (type == kReadLock) return F_RDLCK;
  return type == kWriteLock ? F_WRLCK : F_UNLCK;
}

Outcome<struct flock> lock_range(u8 type, u64 start, u64 length) {
  if (type > kUnlock) return refuse(EINVAL);
  if (start > static_cast<u64>(INT64_MAX) || length > static_cast<u64>(INT64_MAX) - start)
    return refuse(EOVERFLOW);
  struct flock range{};
  range.l_type = host_lock(type);
  range.l_whence = SEEK_SET;
  range.l_start = static_cast<off_t>(start);
  range.l_len = static_cast<off_t>(length);
  return range;
}

// The first `limit` bytes of a list of buffers; at most what one system call takes.
std::vector<iovec> first_bytes(std::span<const iovec> buffers, u64 limit) {
  constexpr std::size_t kMost = 1024;  // IOV_MAX
  std::vector<iovec> some;
  for (const iovec& buffer : buffers) {
    if (limit == 0 || some.size() == kMost) break;
    some.push_back({buffer.iov_base, std::min<u64>(buffer.iov_len, limit)});
    limit -= some.back().iov_len;
  }
  return some;
}

u32 put_bytes(std::string_view bytes, std::span<const iovec> buffers) {
  u32 done = 0;
  for (const iovec& buffer : buffers) {
    const std::size_t run = std::min(buffer.iov_len, bytes.size());
    std::memcpy(buffer.iov_base, bytes.data(), run);
    bytes.remove_prefix(run);
    done += static_cast<u32>(run);
  }
  return done;
}

}  // namespace

Outcome<> Server::lopen(Call& call) {
  const u32 number = call.in.take<u32>();
  const u32 flags = call.in.take<u32>();
  if (!call.in.complete()) return refuse(EINVAL);
  TRY_ASSIGN(Fid* const fid, find(number));
  if (fid->is_open || fid->xattr) return refuse(EBADF);
  if (!fid->place.share) {
    if (wants_write(flags)) return refuse(EISDIR);
  } else {
    TRY(find_host(number, wants_write(flags) ? Access::kWrite : Access::kRead));
    const Node& node = *fid->place.node;
    if ((flags & kDirectory) != 0 && !node.is_directory()) return refuse(ENOTDIR);
    if (node.is_directory() && wants_write(flags)) return refuse(EISDIR);
    TRY_ASSIGN(fid->file, nodes_->open(node, host_flags(flags)));
  }
  fid->is_open = true;
  fid->flags = host_flags(flags);
  TRY_ASSIGN(const Qid qid, qid_of(fid->place));
  call.out.put_qid(qid);
  call.out.put(u32{0});  // iounit: as much as a message takes
  return {};
}

Outcome<HeldFd> Server::create_or_open(const Place& directory, const std::string& name, u32 flags,
                                       u32 mode, NodePointer& node) {
  constexpr int kTries = 8;
  for (int attempt = 0; attempt < kTries; ++attempt) {
    auto file = nodes_->create_file(*directory.node, name, host_flags(flags) & ~O_TRUNC, mode);
    if (file) {
      TRY_ASSIGN(node, nodes_->node_of(file->get()));
      return file;
    }
    if (file.error().value != EEXIST || (flags & kExclusive) != 0) return file;
    // Somebody else made it: what is there may be anything, so it is held before it is opened.
    auto found = nodes_->child(*directory.node, name);
    if (!found && found.error().value == ENOENT) continue;
    if (!found) return std::unexpected(found.error());
    if ((*found)->is_directory()) return refuse(EISDIR);
    node = *found;
    return nodes_->open(*node, host_flags(flags));
  }
  return refuse(EAGAIN);
}

Outcome<> Server::lcreate(Call& call) {
  const u32 number = call.in.take<u32>();
  const std::string_view wanted = call.in.text();
  const u32 flags = call.in.take<u32>();
  const u32 mode = call.in.take<u32>();
  const u32 gid = call.in.take<u32>();
  if (!call.in.complete()) return refuse(EINVAL);
  TRY_ASSIGN(Fid* const fid, find_directory(number, Access::kWrite));
  if (fid->is_open) return refuse(EBADF);
  TRY_ASSIGN(const std::string name, Nodes::check_name(wanted));
  const Ownership& ownership = fid->place.share->ownership;
  NodePointer node;
  {
    const CreatingAs creating(ownership, fid->uid, gid);
    if (!creating.ok()) return refuse(EPERM);
    TRY_ASSIGN(fid->file,
               create_or_open(fid->place, name, flags, ownership.host_mode(mode, false), node));
  }
  fid->place.parent = std::move(fid->place.node);
  fid->place.node = std::move(node);
  fid->place.name = name;
  fid->is_open = true;
  fid->flags = host_flags(flags);
  TRY_ASSIGN(const Qid qid, qid_of(fid->place));
  call.out.put_qid(qid);
  call.out.put(u32{0});
  return {};
}

Outcome<> Server::read(Call& call) {
  const u32 number = call.in.take<u32>();
  const u64 offset = call.in.take<u64>();
  const u32 wanted = call.in.take<u32>();
  if (!call.in.complete()) return refuse(EINVAL);
  TRY_ASSIGN(const Fid* const fid, find(number));
  if (call.room.size < kReadReplyHead) return refuse(EMSGSIZE);
  const u32 most = std::min(message_size_, call.room.size) - kReadReplyHead;
  const auto buffers = first_bytes(call.room.data, std::min(wanted, most));
  if (fid->xattr) {
    const std::string_view value = fid->xattr->value;
    if (fid->xattr->writes) return refuse(EBADF);
    call.data = put_bytes(value.substr(std::min<u64>(offset, value.size())), buffers);
  } else {
    TRY(find_host(number, Access::kRead));
    if (!fid->is_open) return refuse(EBADF);
    if (offset > static_cast<u64>(INT64_MAX)) return refuse(EINVAL);
    const ssize_t got = ::preadv(fid->file.get(), buffers.data(), static_cast<int>(buffers.size()),
                                 static_cast<off_t>(offset));
    if (got < 0) return refuse_errno();
    call.data = static_cast<u32>(got);
    counters_.bytes_read += call.data;
  }
  call.out.put(call.data);
  return {};
}

Outcome<> Server::write(Call& call) {
  const u32 number = call.in.take<u32>();
  const u64 offset = call.in.take<u64>();
  const u32 count = call.in.take<u32>();
  if (!call.in.complete()) return refuse(EINVAL);
  // What the message itself holds behind its head, then the data beside it.
  const ConstByteSpan inside = call.request.message.subspan(kWriteRequestHead);
  std::vector<iovec> buffers = {{const_cast<u8*>(inside.data()), inside.size()}};
  buffers.insert(buffers.end(), call.request.data.begin(), call.request.data.end());
  u64 present = 0;
  for (const iovec& buffer : buffers) present += buffer.iov_len;
  if (count > present) return refuse(EINVAL);
  buffers = first_bytes(buffers, count);
  TRY_ASSIGN(Fid* const fid, find(number));
  u32 written = 0;
  if (fid->xattr) {
    Xattr& xattr = *fid->xattr;
    if (!xattr.writes) return refuse(EBADF);
    if (offset != xattr.filled || count > xattr.size - xattr.filled) return refuse(EINVAL);
    for (const iovec& buffer : buffers)
      xattr.value.append(static_cast<const char*>(buffer.iov_base), buffer.iov_len);
    xattr.filled += count;
    written = count;
  } else {
    TRY(find_host(number, Access::kWrite));
    if (!fid->is_open) return refuse(EBADF);
    if (offset > static_cast<u64>(INT64_MAX)) return refuse(EINVAL);
    const ssize_t put = ::pwritev(fid->file.get(), buffers.data(), static_cast<int>(buffers.size()),
                                  static_cast<off_t>(offset));
    if (put < 0) return refuse_errno();
    written = static_cast<u32>(put);
    counters_.bytes_written += written;
  }
  call.out.put(written);
  return {};
}

Outcome<> Server::fsync(Call& call) {
  const u32 number = call.in.take<u32>();
  if (!call.in.complete()) return refuse(EINVAL);
  const bool data_only = !call.in.at_end() && call.in.take<u32>() != 0;  // older clients: no field
  TRY_ASSIGN(Fid* const fid, find_host(number, Access::kRead));
  if (!fid->is_open) return refuse(EBADF);
  if ((data_only ? ::fdatasync(fid->file.get()) : ::fsync(fid->file.get())) != 0)
    return refuse_errno();
  return {};
}

// The guest's kernel settles its own processes' locks before it asks. The lock on the host is for
// other machines and the host's programs. It belongs to the open file (fcntl(2), "Open file
// description locks"), so another open file of this guest may be in the way of one that the guest
// has granted: that is no conflict.
bool Server::others_hold_locks(const Fid& fid) const {
  for (const auto& [number, other] : fids_)
    if (&other != &fid && other.locked && other.place.node && fid.place.node &&
        other.place.node->device == fid.place.node->device &&
        other.place.node->inode == fid.place.node->inode)
      return true;
  return false;
}

Outcome<> Server::lock(Call& call) {
  const u32 number = call.in.take<u32>();
  const u8 type = call.in.take<u8>();
  call.in.take<u32>();  // flags: whether to wait, which the client does by asking again
  const u64 start = call.in.take<u64>();
  const u64 length = call.in.take<u64>();
  call.in.take<u32>();  // process
  call.in.text();       // client
  if (!call.in.complete()) return refuse(EINVAL);
  TRY_ASSIGN(Fid* const fid, find_host(number, Access::kRead));
  if (!fid->is_open || fid->place.node->is_directory()) return refuse(EBADF);
  TRY_ASSIGN(struct flock range, lock_range(type, start, length));
  u8 status = kLockSuccess;
  if (::fcntl(fid->file.get(), F_OFD_SETLK, &range) == 0) {
    fid->locked |= type != kUnlock;
  } else if (errno == EAGAIN || errno == EACCES) {
    if (!others_hold_locks(*fid)) status = kLockBlocked;
  } else if (errno != EBADF) {
    // EBADF: flock(LOCK_EX) of a file that was opened for reading, which only the guest holds then.
    return refuse_errno();
  }
  call.out.put(status);
  return {};
}

Outcome<> Server::get_lock(Call& call) {
  const u32 number = call.in.take<u32>();
  u8 type = call.in.take<u8>();
  u64 start = call.in.take<u64>();
  u64 length = call.in.take<u64>();
  const u32 process = call.in.take<u32>();
  const std::string client(call.in.text());
  if (!call.in.complete()) return refuse(EINVAL);
  TRY_ASSIGN(Fid* const fid, find_host(number, Access::kRead));
  if (!fid->is_open || fid->place.node->is_directory()) return refuse(EBADF);
  TRY_ASSIGN(struct flock range, lock_range(type, start, length));
  if (type == kUnlock) return refuse(EINVAL);
  if (::fcntl(fid->file.get(), F_OFD_GETLK, &range) != 0) return refuse_errno();
  if (range.l_type == F_UNLCK || others_hold_locks(*fid)) {
    type = kUnlock;
  } else {
    type = range.l_type == F_WRLCK ? kWriteLock : kReadLock;
    start = static_cast<u64>(range.l_start);
    length = static_cast<u64>(range.l_len);
  }
  call.out.put(type);
  call.out.put(start);
  call.out.put(length);
  call.out.put(process);
  call.out.put_text(client);
  return {};
}

}  // namespace smol::share

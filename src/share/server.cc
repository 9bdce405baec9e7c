// The server's frame: shares, messages in and out, sessions, walks. See server.h.
#include "share/server.h"

#include <sched.h>
#include <sys/stat.h>

#include <algorithm>

namespace smol::share {
namespace {

constexpr std::string_view kVersion = "9P2000.L";
constexpr std::size_t kMaxTag = 64;
constexpr u32 kMaxDevices = 1u << 15;
constexpr std::size_t kKeptBuffer = 64 * kKiB;

bool good_tag(std::string_view tag) {
  const auto good = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
  };
  return !tag.empty() && tag.size() <= kMaxTag && tag != "." && tag != ".." &&
         std::all_of(tag.begin(), tag.end(), good);
}

u64 mixed(u64 a, u64 b) {
  u64 x = a * 0x9e3779b97f4a7c15 ^ b;
  x = (x ^ (x >> 31)) * 0xbf58476d1ce4e5b9;
  return x ^ (x >> 29);
}

}  // namespace

Result<std::unique_ptr<Server>> Server::create(u32 max_descriptors) {
  TRY_ASSIGN(auto nodes, Nodes::create(max_descriptors));
  return std::unique_ptr<Server>(new Server(std::move(nodes)));
}

Result<> Server::prepare_thread() {
  if (::unshare(CLONE_FS) != 0) return fail_errno("cannot have a file mode mask of its own");
  ::umask(0);
  return {};
}

Result<> Server::add(const ShareOptions& options) {
  if (!good_tag(options.tag))
    return fail(
        "the share's tag \"{}\" must have 1 to {} letters, digits, dots, dashes or "
        "underscores",
        options.tag, kMaxTag);
  const std::lock_guard lock(mutex_);
  if (shares_.contains(options.tag)) return fail("a share {} is there already", options.tag);
  if (shares_.size() >= kMaxShares) return fail("a machine has at most {} shares", kMaxShares);
  auto root = nodes_->open_root(options.path);
  if (!root) return wrap(root.error(), "cannot share {} as {}", options.path, options.tag);
  shares_[options.tag] = std::make_shared<Share>(Share{.tag = options.tag,
                                                       .read_only = options.read_only,
                                                       .ownership = {options.uid, options.gid},
                                                       .root = std::move(*root),
                                                       .number = next_share_++});
  return {};
}

Result<> Server::remove(std::string_view tag) {
  const std::lock_guard lock(mutex_);
  const auto found = shares_.find(tag);
  if (found == shares_.end()) return fail("there is no share {}", tag);
  const SharePointer share = found->second;
  shares_.erase(found);
  share->removed = true;
  share->root.reset();
  for (auto& [number, fid] : fids_) {
    if (fid.place.share != share) continue;
    fid.place.node.reset();
    fid.place.parent.reset();
    fid.file.reset();
    fid.locked = false;
  }
  publish_counters();
  return {};
}

std::vector<std::string> Server::tags() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> tags;
  for (const auto& [tag, share] : shares_) tags.push_back(tag);
  return tags;
}

void Server::reset() {
  const std::lock_guard lock(mutex_);
  reset_locked();
}

void Server::reset_locked() {
  fids_.clear();
  xattr_bytes_ = 0;
  message_size_ = kMinMessage;
}

void Server::publish_counters() {
  constexpr auto kOrder = std::memory_order_relaxed;
  published_.requests.store(counters_.requests, kOrder);
  published_.errors.store(counters_.errors, kOrder);
  published_.bytes_read.store(counters_.bytes_read, kOrder);
  published_.bytes_written.store(counters_.bytes_written, kOrder);
  published_.fids.store(fids_.size(), kOrder);
  published_.descriptors.store(nodes_->budget().used, kOrder);
}

ServerCounters Server::counters() const {
  return {.requests = published_.requests,
          .errors = published_.errors,
          .bytes_read = published_.bytes_read,
          .bytes_written = published_.bytes_written,
          .fids = published_.fids,
          .descriptors = published_.descriptors};
}

// --- Messages ---

Reply Server::serve(const Request& request, const ReplyRoom& room) {
  const std::lock_guard lock(mutex_);
  ++counters_.requests;
  if (room.size < kErrorReplySize) return {};
  Decoder header(request.message);
  const u32 size = header.take<u32>();
  const u8 type = header.take<u8>();
  const u16 tag = header.take<u16>();
  if (out_.capacity() > kKeptBuffer) out_ = {};
  out_.clear();
  Encoder out(out_);
  out.put(u32{0});
  out.put(static_cast<u8>(type + 1));
  out.put(tag);
  const std::size_t fields = std::min<std::size_t>(size, request.message.size());
  Outcome<> done = refuse(EINVAL);
  u32 data = 0;
  if (header.complete() && size >= kHeaderSize) {
    Call call{.in = Decoder(request.message.subspan(kHeaderSize, fields - kHeaderSize)),
              .out = out,
              .request = request,
              .room = room};
    done = dispatch(static_cast<Type>(type), call);
    data = call.data;
  }
  if (done && out_.size() + data > room.size) done = refuse(EMSGSIZE);
  if (!done) {
    ++counters_.errors;
    data = 0;
    out.truncate(kHeaderSize);
    out.set(4, static_cast<u8>(static_cast<u8>(Type::kError) + 1));
    out.put(static_cast<u32>(done.error().value));
  }
  out.set(0, static_cast<u32>(out_.size() + data));
  publish_counters();
  return {.head = out_, .data = data};
}

Outcome<> Server::dispatch(Type type, Call& call) {
  switch (type) {
    case Type::kVersion:
      return version(call);
    case Type::kAttach:
      return attach(call);
    case Type::kWalk:
      return walk(call);
    case Type::kClunk:
      return clunk(call);
    case Type::kFlush:
      return {};  // requests are served in order: the old one has its reply
    case Type::kLopen:
      return lopen(call);
    case Type::kLcreate:
      return lcreate(call);
    case Type::kRead:
      return read(call);
    case Type::kWrite:
      return write(call);
    case Type::kReaddir:
      return readdir(call);
    case Type::kFsync:
      return fsync(call);
    case Type::kLock:
      return lock(call);
    case Type::kGetLock:
      return get_lock(call);
    case Type::kSymlink:
      return symlink(call);
    case Type::kMknod:
      return mknod(call);
    case Type::kMkdir:
      return mkdir(call);
    case Type::kLink:
      return link(call);
    case Type::kRename:
      return rename(call);
    case Type::kRenameAt:
      return rename_at(call);
    case Type::kUnlinkAt:
      return unlink_at(call);
    case Type::kRemove:
      return remove_file(call);
    case Type::kReadlink:
      return readlink(call);
    case Type::kGetattr:
      return getattr(call);
    case Type::kSetattr:
      return setattr(call);
    case Type::kStatfs:
      return statfs(call);
    case Type::kXattrWalk:
      return xattr_walk(call);
    case Type::kXattrCreate:
      return xattr_create(call);
    case Type::kAuth:
    case Type::kError:
      break;
  }
  return refuse(EOPNOTSUPP);
}

Outcome<> Server::version(Call& call) {
  const u32 wanted = call.in.take<u32>();
  const std::string_view name = call.in.text();
  if (!call.in.complete()) return refuse(EINVAL);
  reset_locked();
  if (wanted < kMinMessage) return refuse(EMSGSIZE);
  message_size_ = std::min(wanted, kMaxMessage);
  call.out.put(message_size_);
  call.out.put_text(name == kVersion ? kVersion : "unknown");
  return {};
}

// aname: empty, or a share's tag (with or without a slash before it).
Outcome<> Server::attach(Call& call) {
  const u32 number = call.in.take<u32>();
  call.in.take<u32>();  // afid
  call.in.text();       // uname
  std::string_view where = call.in.text();
  // A client that tells no user (access=any) is the monitor's own.
  u32 uid = call.in.take<u32>();
  if (uid == kKeepOwner) uid = 0;
  if (!call.in.complete()) return refuse(EINVAL);
  if (where.starts_with('/')) where.remove_prefix(1);
  Place place;
  if (!where.empty()) {
    TRY_ASSIGN(place, step(place, where));
  }
  TRY_ASSIGN(const Qid qid, qid_of(place));
  TRY(new_fid(number, std::move(place), uid));
  call.out.put_qid(qid);
  return {};
}

Outcome<Server::Place> Server::step(const Place& from, std::string_view name) {
  if (name == ".") return from;
  if (!from.share) {
    if (name == "..") return from;
    const auto found = shares_.find(name);
    if (found == shares_.end()) return refuse(ENOENT);
    return Place{.share = found->second, .node = found->second->root, .parent = {}, .name = {}};
  }
  if (from.share->removed) return refuse(ESTALE);
  if (name != "..") {
    TRY_ASSIGN(NodePointer node, nodes_->child(*from.node, name));
    return Place{.share = from.share,
                 .node = std::move(node),
                 .parent = from.node,
                 .name = std::string(name)};
  }
  const Node& root = *from.share->root;
  if (from.node->device == root.device && from.node->inode == root.inode) return Place{};
  TRY_ASSIGN(NodePointer node, nodes_->parent(*from.node, root));
  return Place{.share = from.share, .node = std::move(node), .parent = {}, .name = {}};
}

Outcome<> Server::walk(Call& call) {
  const u32 number = call.in.take<u32>();
  const u32 new_number = call.in.take<u32>();
  const u16 count = call.in.take<u16>();
  if (!call.in.complete() || count > kMaxWalk) return refuse(EINVAL);
  std::string_view names[kMaxWalk];
  for (u16 i = 0; i < count; ++i) names[i] = call.in.text();
  if (!call.in.complete()) return refuse(EINVAL);
  TRY_ASSIGN(Fid* const fid, find(number));
  if (fid->xattr) return refuse(EINVAL);
  if (new_number != number && fids_.contains(new_number)) return refuse(EBADF);
  Place place = fid->place;
  const u32 uid = fid->uid;
  if (place.share && place.share->removed) return refuse(ESTALE);
  const std::size_t at = call.out.size();
  call.out.put(u16{0});
  u16 walked = 0;
  for (; walked < count; ++walked) {
    auto next = step(place, names[walked]);
    auto qid = next ? qid_of(*next) : Outcome<Qid>(std::unexpected(next.error()));
    if (!qid && walked == 0) return std::unexpected(qid.error());
    if (!qid) break;
    call.out.put_qid(*qid);
    place = std::move(*next);
  }
  call.out.set(at, walked);
  if (walked != count) return {};  // walk(5): the new fid is then not made
  if (new_number == number) drop_fid(number);
  TRY(new_fid(new_number, std::move(place), uid));
  return {};
}

Outcome<> Server::clunk(Call& call) {
  const u32 number = call.in.take<u32>();
  TRY_ASSIGN(const Fid* const fid, find(number));
  const Outcome<> finished = fid->xattr && fid->xattr->writes ? finish_xattr(*fid) : Outcome<>();
  drop_fid(number);
  return finished;
}

// --- Fids ---

Outcome<Server::Fid*> Server::find(u32 number) {
  const auto found = fids_.find(number);
  if (found == fids_.end()) return refuse(EBADF);
  return &found->second;
}

Outcome<Server::Fid*> Server::find_host(u32 number, Access access) {
  TRY_ASSIGN(Fid* const fid, find(number));
  if (!fid->place.share) return refuse(access == Access::kWrite ? EROFS : EOPNOTSUPP);
  if (fid->place.share->removed) return refuse(ESTALE);
  if (access == Access::kWrite && fid->place.share->read_only) return refuse(EROFS);
  return fid;
}

Outcome<Server::Fid*> Server::find_directory(u32 number, Access access) {
  TRY_ASSIGN(Fid* const fid, find_host(number, access));
  if (!fid->place.node->is_directory()) return refuse(ENOTDIR);
  return fid;
}

Outcome<Server::Fid*> Server::new_fid(u32 number, Place place, u32 uid) {
  if (number == kNoFid || fids_.contains(number)) return refuse(EBADF);
  if (fids_.size() >= kMaxFids) return refuse(EMFILE);
  Fid& fid = fids_[number];
  fid.place = std::move(place);
  fid.uid = uid;
  return &fid;
}

void Server::drop_fid(u32 number) {
  const auto found = fids_.find(number);
  if (found == fids_.end()) return;
  if (found->second.xattr) xattr_bytes_ -= found->second.xattr->size;
  fids_.erase(found);
}

// --- Qids ---

// Inode numbers are unique on one device only: the device's number (in the order of their
// appearance) goes above 48 bits of inode. Larger inode numbers are hashed into the upper half.
u64 Server::qid_path(u64 device, u64 inode) {
  constexpr u64 kHashed = u64{1} << 63;
  auto found = devices_.find(device);
  if (found == devices_.end()) {
    if (devices_.size() >= kMaxDevices - 1) return mixed(device, inode) | kHashed;
    found = devices_.emplace(device, static_cast<u32>(devices_.size() + 1)).first;
  }
  if (inode >> 48 != 0) return mixed(device, inode) | kHashed;
  return (u64{found->second} << 48) | inode;
}

Qid Server::qid_of(const struct stat& status) {
  Qid qid;
  qid.type = S_ISDIR(status.st_mode)   ? kQidDirectory
             : S_ISLNK(status.st_mode) ? kQidSymlink
                                       : kQidFile;
  // Another version when the content changed. 0 would mean a synthetic file to Linux.
  qid.version = static_cast<u32>(mixed(static_cast<u64>(status.st_mtim.tv_sec) * 1'000'000'000 +
                                           static_cast<u64>(status.st_mtim.tv_nsec),
                                       static_cast<u64>(status.st_size))) |
                1;
  qid.path = qid_path(status.st_dev, status.st_ino);
  return qid;
}

Outcome<Qid> Server::qid_of(const Place& place) {
  if (!place.share) return root_qid();
  TRY_ASSIGN(const struct stat status, status_of(*place.node));
  return qid_of(status);
}

}  // namespace smol::share

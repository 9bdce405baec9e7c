// Listing directories: the synthetic root, and host directories by getdents64.
//
// The offset of an entry is the host's own cookie, so a listing goes on rightly after any pause,
// and after changes as well as the host's file system does it. Nothing is kept between two
// requests.
#include <dirent.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "share/server.h"

namespace smol::share {
namespace {

constexpr std::size_t kEntryHead = 13 + 8 + 1 + 2;  // qid, offset, type, length of the name
constexpr std::size_t kHostBuffer = 64 * kKiB;
constexpr u64 kUnknown = ~u64{0};

// struct linux_dirent64 of getdents64(2).
struct HostEntry {
  u64 inode;
  i64 next;
  u16 size;
  u8 kind;
  char name[1];
};

void put_entry(Encoder& out, const Qid& qid, u64 next, u8 kind, std::string_view name) {
  out.put_qid(qid);
  out.put(next);
  out.put(kind);
  out.put_text(name);
}

}  // namespace

Outcome<> Server::readdir(Call& call) {
  const u32 number = call.in.take<u32>();
  const u64 offset = call.in.take<u64>();
  const u32 wanted = call.in.take<u32>();
  if (!call.in.complete()) return refuse(EINVAL);
  TRY_ASSIGN(Fid* const fid, find(number));
  if (!fid->is_open) return refuse(EBADF);
  if (call.room.size < kReadReplyHead) return refuse(EMSGSIZE);
  const u32 most = std::min(message_size_, call.room.size) - kReadReplyHead;
  const std::size_t at = call.out.size();
  call.out.put(u32{0});
  const std::size_t start = call.out.size();
  const std::size_t end = start + std::min(wanted, most);
  if (!fid->place.share) {
    list_shares(offset, end, call.out);
  } else {
    TRY(find_directory(number, Access::kRead));
    TRY(list_host(*fid, offset, end, call.out));
  }
  call.out.set(at, static_cast<u32>(call.out.size() - start));
  return {};
}

// Offsets are the shares' numbers plus two, so that shares that come and go disturb no listing.
void Server::list_shares(u64 offset, std::size_t end, Encoder& out) const {
  const auto put = [&](const Qid& qid, u64 next, std::string_view name) {
    if (offset >= next) return true;
    if (out.size() + kEntryHead + name.size() > end) return false;
    put_entry(out, qid, next, DT_DIR, name);
    return true;
  };
  if (!put(root_qid(), 1, ".") || !put(root_qid(), 2, "..")) return;
  std::vector<const Share*> shares;
  for (const auto& [tag, share] : shares_) shares.push_back(share.get());
  std::ranges::sort(shares, {}, &Share::number);
  for (const Share* const share : shares) {
    const Qid qid{kQidDirectory, 1, share->root->inode};
    if (!put(qid, share->number + 2, share->tag)) return;
  }
}

Qid Server::entry_qid(const Fid& fid, std::string_view name, u64 inode, u8 kind) {
  // What is above the share is none of the guest's business.
  const Node& root = *fid.place.share->root;
  const Node& node = *fid.place.node;
  if (name == ".." && node.device == root.device && node.inode == root.inode) return root_qid();
  const u8 type = kind == DT_DIR ? kQidDirectory : kind == DT_LNK ? kQidSymlink : kQidFile;
  return {type, 1, qid_path(node.device, inode)};
}

Outcome<> Server::list_host(Fid& fid, u64 offset, std::size_t end, Encoder& out) {
  const int directory = fid.file.get();
  if (fid.position != offset || offset == 0) {
    if (::lseek(directory, static_cast<off_t>(offset), SEEK_SET) < 0) return refuse_errno();
    fid.position = offset;
  }
  const std::size_t start = out.size();
  entries_.resize(kHostBuffer);
  for (;;) {
    // Our entries are a little larger than the host's, so little is read that does not fit.
    const std::size_t room = std::clamp<std::size_t>(end - out.size(), 512, kHostBuffer);
    const long got = ::syscall(SYS_getdents64, directory, entries_.data(), room);
    if (got < 0) return refuse_errno();
    if (got == 0) return {};
    for (std::size_t at = 0; at < static_cast<std::size_t>(got);) {
      const u8* const record = entries_.data() + at;
      const u64 inode = base::load<u64>(record);
      const u64 next = base::load<u64>(record + 8);
      const u8 kind = record[offsetof(HostEntry, kind)];
      const std::string_view name(
          reinterpret_cast<const char*>(record + offsetof(HostEntry, name)));
      if (out.size() + kEntryHead + name.size() > end) {
        fid.position = kUnknown;
        return out.size() == start ? Outcome<>(refuse(EINVAL)) : Outcome<>();
      }
      put_entry(out, entry_qid(fid, name, inode, kind), next, kind, name);
      fid.position = next;
      at += base::load<u16>(record + offsetof(HostEntry, size));
    }
  }
}

}  // namespace smol::share

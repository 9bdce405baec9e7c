// A 9P2000.L server over host directories: one request's bytes in, its reply's bytes out.
//
// One connection carries any number of shares: the root that a guest attaches to is synthetic, with
// one directory a share, named by its tag. Shares come and go while the guest runs. A share that is
// removed answers ESTALE to whatever still refers to it, its descriptors are closed, and the host
// directory is never touched again; a new share of the same tag is another one.
//
// What a guest can reach: what node.h says. What it can change: nothing in a read-only share
// (EROFS, decided here); otherwise what the monitor's user can. Owners: owner.h. Not served: device
// nodes (EPERM), opening special files (EACCES; a guest's own kernel serves those), extended
// attributes other than user.* (EOPNOTSUPP, ENODATA).
//
// Limits: kMaxFids, kMaxMessage, names of 255 bytes, Nodes' descriptors (EMFILE), kMaxXattr bytes a
// value and kMaxXattrTotal together. All fields of a request are guest-controlled.
//
// Threads: serve(), add() and remove() may be called from any thread and take turns, so remove()
// waits for a request that the host is slow to serve. Threads that call serve() ran
// prepare_thread() first.
#pragma once

#include <sys/uio.h>

#include <atomic>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "share/node.h"
#include "share/owner.h"
#include "share/wire.h"

namespace smol::share {

struct ShareOptions {
  std::string tag;   // [A-Za-z0-9._-], 1 to 64 characters, not "." or ".."
  std::string path;  // of a directory
  bool read_only = false;
  std::optional<u32> uid = {}, gid = {};  // owner that the guest is shown for each file
};

// message: the request from its first byte on. Of a Twrite it may hold kWriteRequestHead bytes
// only, with the rest in data.
struct Request {
  ConstByteSpan message;
  std::span<const iovec> data;
};
// The room for a reply: size bytes in all; data: where the bytes behind the first kReadReplyHead
// of an Rread go to.
struct ReplyRoom {
  u32 size = 0;
  std::span<const iovec> data;
};
// head: valid until the next serve(). data: bytes that were put into ReplyRoom::data, behind head.
struct Reply {
  ConstByteSpan head;
  u32 data = 0;
};

struct ServerCounters {
  u64 requests = 0, errors = 0, bytes_read = 0, bytes_written = 0;
  u64 fids = 0, descriptors = 0;  // at the end of the last request
};

class Server {
 public:
  static constexpr u32 kMaxMessage = 1 * kMiB;
  static constexpr u32 kMinMessage = 4096;
  // Of a request without data; more than the longest names and a symbolic link's target need.
  static constexpr u32 kMaxRequestHead = 16 * kKiB;
  static constexpr u32 kMaxFids = 65536;
  static constexpr u32 kMaxShares = 1024;
  static constexpr u64 kMaxXattr = 64 * kKiB;
  static constexpr u64 kMaxXattrTotal = 4 * kMiB;

  // max_descriptors: at most that many are held at the same time.
  static Result<std::unique_ptr<Server>> create(u32 max_descriptors);

  // Errors: a tag that is taken or malformed, a path that is missing or no directory.
  Result<> add(const ShareOptions& options);
  Result<> remove(std::string_view tag);
  std::vector<std::string> tags() const;

  // Gives this thread a file mode creation mask of its own, 0: the guest has applied its own.
  static Result<> prepare_thread();
  // Never fails: what is wrong is said in the reply. Empty head: the room has less than
  // kErrorReplySize bytes.
  Reply serve(const Request& request, const ReplyRoom& room);
  // Forgets the client: all fids, locks and the message size.
  void reset();

  // Never waits for a request.
  ServerCounters counters() const;

 private:
  struct Share {
    std::string tag;
    bool read_only = false;
    Ownership ownership;
    NodePointer root;
    u64 number = 0;  // never used twice
    bool removed = false;
  };
  // Shared: by the table and by the fids that still refer to it after its removal.
  using SharePointer = std::shared_ptr<Share>;

  struct Xattr {
    bool writes = false;
    std::string name;
    int flags = 0;
    u64 size = 0;  // as announced; value is that long
    u64 filled = 0;
    std::string value = {};
  };
  struct Place {
    SharePointer share;  // none: the synthetic root
    NodePointer node;    // none in the synthetic root and after removal
    NodePointer parent;  // none: the share's root, or not known
    std::string name;    // in parent
  };
  struct Fid {
    Place place;
    u32 uid = 0;  // the guest's user that it was attached for
    bool is_open = false;
    HeldFd file;       // when open, but not of the synthetic root
    int flags = 0;     // it was opened with
    u64 position = 0;  // a directory's, where the next entry is read; kUnknown: seek first
    bool locked = false;
    std::unique_ptr<Xattr> xattr;
  };
  struct Call {
    Decoder in;
    Encoder out;
    const Request& request;
    const ReplyRoom& room;
    u32 data = 0;
  };
  enum class Access { kRead, kWrite };

  explicit Server(std::unique_ptr<Nodes> nodes) : nodes_(std::move(nodes)) {}

  Outcome<> dispatch(Type type, Call& call);
  void publish_counters();

  // server.cc: sessions and walks
  Outcome<> version(Call& call);
  Outcome<> attach(Call& call);
  Outcome<> walk(Call& call);
  Outcome<> clunk(Call& call);
  Outcome<Place> step(const Place& from, std::string_view name);
  void reset_locked();
  void drop_fid(u32 number);

  // server_files.cc
  Outcome<> lopen(Call& call);
  Outcome<> lcreate(Call& call);
  Outcome<HeldFd> create_or_open(const Place& directory, const std::string& name, u32 flags,
                                 u32 mode, NodePointer& node);
  Outcome<> read(Call& call);
  Outcome<> write(Call& call);
  Outcome<> fsync(Call& call);
  Outcome<> lock(Call& call);
  Outcome<> get_lock(Call& call);
  bool others_hold_locks(const Fid& fid) const;

  // server_directories.cc
  Outcome<> readdir(Call& call);
  void list_shares(u64 offset, std::size_t end, Encoder& out) const;
  Outcome<> list_host(Fid& fid, u64 offset, std::size_t end, Encoder& out);
  Qid entry_qid(const Fid& fid, std::string_view name, u64 inode, u8 kind);

  // server_names.cc
  Outcome<> symlink(Call& call);
  Outcome<> mknod(Call& call);
  Outcome<> mkdir(Call& call);
  Outcome<> link(Call& call);
  Outcome<> rename(Call& call);
  Outcome<> rename_at(Call& call);
  Outcome<> unlink_at(Call& call);
  Outcome<> remove_file(Call& call);
  Outcome<> readlink(Call& call);
  Outcome<> put_qid_of(const Place& directory, const std::string& name, Call& call);
  Outcome<> still_named(const Place& place) const;

  // server_attributes.cc
  Outcome<> getattr(Call& call);
  Outcome<> setattr(Call& call);
  Outcome<> statfs(Call& call);
  Outcome<> xattr_walk(Call& call);
  Outcome<> xattr_create(Call& call);
  Outcome<> finish_xattr(const Fid& fid);

  // What most requests start with. EBADF: no such fid; ESTALE: its share is gone; EROFS: a write to
  // a read-only share or to the synthetic root.
  Outcome<Fid*> find(u32 number);
  Outcome<Fid*> find_host(u32 number, Access access);
  Outcome<Fid*> find_directory(u32 number, Access access);
  Outcome<Fid*> new_fid(u32 number, Place place, u32 uid);
  Qid qid_of(const struct stat& status);
  Qid root_qid() const { return {kQidDirectory, 1, 0}; }
  Outcome<Qid> qid_of(const Place& place);
  u64 qid_path(u64 device, u64 inode);

  mutable std::mutex mutex_;  // guards all
  std::unique_ptr<Nodes> nodes_;
  std::map<std::string, SharePointer, std::less<>> shares_;
  u64 next_share_ = 1;
  std::unordered_map<u32, Fid> fids_;
  std::unordered_map<u64, u32> devices_;  // host device numbers, counted as they are met
  u32 message_size_ = kMinMessage;
  u64 xattr_bytes_ = 0;
  std::vector<u8> out_;
  std::vector<u8> entries_;  // of getdents
  ServerCounters counters_;
  struct {
    std::atomic<u64> requests, errors, bytes_read, bytes_written, fids, descriptors;
  } published_ = {};
};

}  // namespace smol::share

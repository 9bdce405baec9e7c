// Who owns a shared file: what the guest is shown, and as whom the host creates it.
//
// kFixed: the user named an owner; each file shows it, created ones belong to the monitor's user.
// kOwn: an unprivileged monitor without a named owner; its own files show as root's (0), so that
//   root in the guest owns what it creates, root's show as nobody's, others as they are.
// kHost: a monitor run as root, without a named owner: owners are passed through both ways, and a
//   file is created under the guest user's own file system identity (setfsuid), so that it never
//   belongs to root for a moment.
// Where files belong to the monitor's user, set-user-ID and set-group-ID bits of regular files are
// not kept: they would lend the monitor's user to whoever finds the file on the host.
// In no case can a guest make a device node.
#pragma once

#include <sys/stat.h>

#include <optional>

#include "base/bytes.h"
#include "share/errno.h"

namespace smol::share {

inline constexpr u32 kKeepOwner = ~u32{0};
inline constexpr u32 kNobody = 65534;

class Ownership {
 public:
  // uid, gid: named by the user.
  Ownership(std::optional<u32> uid, std::optional<u32> gid);

  u32 shown_uid(u32 host) const { return shown(uid_, own_uid_, host); }
  u32 shown_gid(u32 host) const { return shown(gid_, own_gid_, host); }
  // What fchown is to be given; kKeepOwner: nothing to change. EPERM: an owner that cannot be.
  Outcome<u32> host_uid(u32 wanted, u32 now) const { return wished(uid_, own_uid_, wanted, now); }
  Outcome<u32> host_gid(u32 wanted, u32 now) const { return wished(gid_, own_gid_, wanted, now); }
  // Permission bits as they are set on the host.
  u32 host_mode(u32 mode, bool directory) const;
  bool creates_as_guest() const { return pass_through_; }

 private:
  u32 shown(std::optional<u32> fixed, u32 own, u32 host) const;
  Outcome<u32> wished(std::optional<u32> fixed, u32 own, u32 wanted, u32 now) const;

  std::optional<u32> uid_, gid_;
  u32 own_uid_ = 0, own_gid_ = 0;
  bool pass_through_ = false;
};

// While it lives, what this thread creates belongs to uid and gid (kHost; otherwise nothing
// happens). Permission checks stay root's: the guest's kernel has made them, with groups that only
// it knows. ok() false: this process may not (EPERM).
class CreatingAs {
 public:
  CreatingAs(const Ownership& ownership, u32 uid, u32 gid);
  ~CreatingAs();
  CreatingAs(const CreatingAs&) = delete;
  CreatingAs& operator=(const CreatingAs&) = delete;
  bool ok() const { return ok_; }

 private:
  bool changed_ = false;
  bool ok_ = true;
};

}  // namespace smol::share

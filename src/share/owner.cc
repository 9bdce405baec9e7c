// The identity calls are per thread (setfsuid(2)); glibc's are plain system calls.
#include "share/owner.h"

#include <linux/capability.h>
#include <sys/fsuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/check.h"

namespace smol::share {
namespace {

// The kernel takes the file capabilities away with the change of identity (capabilities(7), "Effect
// of user ID changes"); the one that skips permission checks is wanted back.
bool keep_dac_override() {
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  __user_cap_data_struct sets[2] = {};
  if (::syscall(SYS_capget, &header, sets) != 0) return false;
  const u32 wanted = (1u << CAP_DAC_OVERRIDE) | (1u << CAP_DAC_READ_SEARCH);
  sets[0].effective |= wanted & sets[0].permitted;
  return ::syscall(SYS_capset, &header, sets) == 0;
}

bool in_force(int uid, int gid) {
  // An argument that is no ID changes nothing and returns what is in force.
  return ::setfsuid(static_cast<uid_t>(-1)) == uid && ::setfsgid(static_cast<gid_t>(-1)) == gid;
}

}  // namespace

Ownership::Ownership(std::optional<u32> uid, std::optional<u32> gid)
    : uid_(uid), gid_(gid), own_uid_(::geteuid()), own_gid_(::getegid()) {
  pass_through_ = own_uid_ == 0 && !uid && !gid;
}

u32 Ownership::shown(std::optional<u32> fixed, u32 own, u32 host) const {
  if (fixed) return *fixed;
  if (pass_through_) return host;
  if (host == own) return 0;
  return host == 0 ? kNobody : host;
}

Outcome<u32> Ownership::wished(std::optional<u32> fixed, u32 own, u32 wanted, u32 now) const {
  if (wanted == kKeepOwner || wanted == shown(fixed, own, now)) return kKeepOwner;
  if (fixed) return refuse(EPERM);
  return !pass_through_ && wanted == 0 ? own : wanted;
}

u32 Ownership::host_mode(u32 mode, bool directory) const {
  mode &= 07777;
  return pass_through_ || directory ? mode : mode & ~u32{S_ISUID | S_ISGID};
}

CreatingAs::CreatingAs(const Ownership& ownership, u32 uid, u32 gid) {
  if (!ownership.creates_as_guest() || (uid == 0 && gid == 0)) return;
  changed_ = true;
  ::setfsgid(gid);
  ::setfsuid(uid);
  ok_ = in_force(static_cast<int>(uid), static_cast<int>(gid)) && (uid == 0 || keep_dac_override());
}

CreatingAs::~CreatingAs() {
  if (!changed_) return;
  ::setfsuid(0);
  ::setfsgid(0);
  CHECK(in_force(0, 0));  // root may always go back
}

}  // namespace smol::share

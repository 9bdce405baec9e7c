// Is this host's /dev/kvm worth using? Opening it does not tell: some hosts give a KVM that runs
// ring 3 natively and interprets every instruction of ring 0, some hundred times slower than our
// software CPU runs it, and whose interpreter lacks instructions that every kernel needs. So a
// small guest is run and timed.
//
// The criterion is a ratio: the same loop, in the same long-mode guest with paging on, in ring 0
// and in ring 3. Under hardware virtualization both run at one speed; under nested virtualization
// on an emulated CPU both are slow, yet alike, and KVM is still the right choice there.
#pragma once

#include <string>
#include <string_view>

#include "base/bytes.h"

namespace smol::hypervisor::kvm {

enum class KvmFitness {
  kMissing,    // no such device, or nothing behind it
  kForbidden,  // there, and this user may not open it
  kBroken,     // opens, and cannot run a guest right
  kEmulating,  // runs ring 0 by interpretation
  kFit,
};
std::string_view name_of(KvmFitness fitness);  // "missing", "forbidden", ...

struct KvmStatus {
  KvmFitness fitness = KvmFitness::kMissing;
  std::string reason;   // one line, with what to do where the user can do something
  u64 ring0_speed = 0;  // guest instructions a second; 0: not measured
  u64 ring3_speed = 0;
  u64 probe_nanoseconds = 0;
};

// Takes some milliseconds; every guest run in it is bounded by a watchdog that kicks it. Any
// thread; starts and joins one of its own.
KvmStatus probe(const std::string& device_path = "/dev/kvm");

}  // namespace smol::hypervisor::kvm

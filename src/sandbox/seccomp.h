// System call filters, one program for each kind of the monitor's threads (seccomp(2)). What they
// allow is tools/seccomp_filters/policy.h; they are made when the monitor is built. A call that is
// not allowed kills the process with SIGSYS.
#pragma once

#include <string_view>

#include "base/result.h"

namespace smol::sandbox {

enum class ThreadKind { kMain, kVcpu, kDevices, kWorker, kApi };
inline constexpr ThreadKind kThreadKinds[] = {ThreadKind::kMain, ThreadKind::kVcpu,
                                              ThreadKind::kDevices, ThreadKind::kWorker,
                                              ThreadKind::kApi};
std::string_view name_of(ThreadKind kind);

enum class SeccompMode {
  kOff,
  kKill,
  kLog
};  // kLog: a call that is not allowed is written to the kernel's audit log and made
Result<SeccompMode> parse_seccomp(std::string_view text);  // true, false, log
std::string_view name_of(SeccompMode mode);

// For all threads of the process; set once, before the first other thread starts. Default kOff.
void set_seccomp_mode(SeccompMode mode);
SeccompMode seccomp_mode();

// Confines the calling thread for good. Needs no_new_privs (confine()). A thread that was made by a
// confined one keeps its maker's filter too. Nothing happens in mode kOff.
Result<> filter_thread(ThreadKind kind);

// BPF instructions of the kind's filter.
std::size_t filter_size(ThreadKind kind);

}  // namespace smol::sandbox

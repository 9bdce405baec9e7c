#include "sandbox/seccomp.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>

#include <span>

namespace smol::sandbox {
namespace {

#include "sandbox/filters.inc"

SeccompMode g_mode = SeccompMode::kOff;

std::span<const sock_filter> program(ThreadKind kind, bool log) {
  const auto pick = [log](auto& kill, auto& other) {
    return log ? std::span<const sock_filter>(other) : std::span<const sock_filter>(kill);
  };
  switch (kind) {
    case ThreadKind::kMain:
      return pick(kMainKill, kMainLog);
    case ThreadKind::kVcpu:
      return pick(kVcpuKill, kVcpuLog);
    case ThreadKind::kDevices:
      return pick(kDevicesKill, kDevicesLog);
    case ThreadKind::kWorker:
      return pick(kWorkerKill, kWorkerLog);
    case ThreadKind::kApi:
      return pick(kApiKill, kApiLog);
  }
  return {};
}

}  // namespace

std::string_view name_of(ThreadKind kind) {
  switch (kind) {
    case ThreadKind::kMain:
      return "main";
    case ThreadKind::kVcpu:
      return "vcpu";
    case ThreadKind::kDevices:
      return "devices";
    case ThreadKind::kWorker:
      return "worker";
    case ThreadKind::kApi:
      return "api";
  }
  return "?";
}

Result<SeccompMode> parse_seccomp(std::string_view text) {
  if (text == "true") return SeccompMode::kKill;
  if (text == "false") return SeccompMode::kOff;
  if (text == "log") return SeccompMode::kLog;
  return fail("--seccomp: '{}' is not supported (true, false and log are)", text);
}

std::string_view name_of(SeccompMode mode) {
  return mode == SeccompMode::kKill ? "kill" : mode == SeccompMode::kLog ? "log" : "off";
}

void set_seccomp_mode(SeccompMode mode) {
#ifdef SMOL_NO_SECCOMP
  mode = SeccompMode::kOff;
#endif
  g_mode = mode;
}

SeccompMode seccomp_mode() { return g_mode; }

Result<> filter_thread(ThreadKind kind) {
  if (g_mode == SeccompMode::kOff) return {};
  const std::span<const sock_filter> filter = program(kind, g_mode == SeccompMode::kLog);
  const sock_fprog value{.len = static_cast<unsigned short>(filter.size()),
                         .filter = const_cast<sock_filter*>(filter.data())};
  if (::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &value) != 0)
    return fail_errno("cannot install the system call filter of a {} thread", name_of(kind));
  return {};
}

std::size_t filter_size(ThreadKind kind) { return program(kind, false).size(); }

}  // namespace smol::sandbox

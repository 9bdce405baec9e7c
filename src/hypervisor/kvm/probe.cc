#include "hypervisor/kvm/probe.h"

#include <cpuid.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <chrono>

#include "base/fd.h"
#include "hypervisor/kvm/kvm.h"
#include "hypervisor/kvm/probe_guest.h"

namespace smol::hypervisor::kvm {
namespace {

// Ring 0 slower than ring 3 by this factor is interpreted. Measured: 1 on hardware and on emulated
// hardware, over a hundred where ring 0 is interpreted.
constexpr u64 kEmulationRatio = 16;
// A ratio outside these bounds ends the measuring early: no busy host explains it.
constexpr u64 kSurelyEmulating = 128, kSurelyNative = 2;
// Rounds grow in length by two, from a millisecond.
constexpr u32 kRounds = 6;

// The name of a group out of /etc/group; the number when there is none. By hand, because the C
// library's look-up does not work in a static program.
std::string group_name(gid_t group) {
  const std::string number = std::to_string(group);
  if (const auto text = base::read_text_file("/etc/group")) {
    std::size_t begin = 0;
    while (begin < text->size()) {
      const std::size_t end = std::min(text->find('\n', begin), text->size());
      const std::string line = text->substr(begin, end - begin);
      begin = end + 1;
      const std::size_t name = line.find(':');
      const std::size_t id = name == std::string::npos ? name : line.find(':', name + 1);
      if (id == std::string::npos) continue;
      if (line.substr(id + 1, line.find(':', id + 1) - id - 1) == number)
        return line.substr(0, name);
    }
  }
  return number;
}

std::string forbidden_reason(const std::string& path) {
  struct stat info = {};
  if (::stat(path.c_str(), &info) != 0) return path + " may not be opened by this user";
  const std::string group = group_name(info.st_gid);
  const bool group_may = (info.st_mode & 0060) == 0060;
  if (group_may && info.st_gid != 0)
    return fmt::format(
        "this user may not open {}: add it to the group {} (usermod -aG {} USER) and log in again",
        path, group, group);
  return fmt::format(
      "this user may not open {} (mode {:04o}, group {}): have root give it to a group (chgrp kvm "
      "{}; chmod 660 "
      "{}) and add the user to that",
      path, info.st_mode & 07777, group, path, path);
}

KvmStatus closed(const std::string& path, const Error& error) {
  switch (error.error_number()) {
    case ENOENT:
      return {.fitness = KvmFitness::kMissing,
              .reason = fmt::format(
                  "there is no {}: no hardware virtualization, it is off in the firmware, or "
                  "the kvm module is not loaded",
                  path)};
    case ENXIO:
    case ENODEV:
      return {.fitness = KvmFitness::kMissing, .reason = "nothing stands behind " + path};
    case EACCES:
    case EPERM:
      return {.fitness = KvmFitness::kForbidden, .reason = forbidden_reason(path)};
    default:
      return {.fitness = KvmFitness::kBroken, .reason = error.chain()};
  }
}

struct Speeds {
  u64 ring0 = 0, ring3 = 0;
  bool measured() const { return ring0 != 0 && ring3 != 0; }
  bool ring0_slower_by(u64 factor) const { return ring0 * factor < ring3; }
};

// The best of some rounds, since a busy host can only make a round look slower.
Result<Speeds> measure(ProbeGuest& guest) {
  TRY(guest.warm_up());
  Speeds best;
  for (u32 round = 0; round < kRounds; round++) {
    TRY_ASSIGN(const u64 ring3, guest.loop_speed(Ring::kUser, 1u << round));
    TRY_ASSIGN(const u64 ring0, guest.loop_speed(Ring::kKernel, 1u << round));
    best.ring0 = std::max(best.ring0, ring0);
    best.ring3 = std::max(best.ring3, ring3);
    if (best.measured() &&
        (!best.ring0_slower_by(kSurelyNative) || best.ring0_slower_by(kSurelyEmulating)))
      return best;
  }
  if (!best.measured()) return fail("a guest did not get to run in {} ms", 1u << (kRounds - 1));
  return best;
}

bool host_has_xsave() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_OSXSAVE) != 0;
}

// All that failed, in one line; empty: none.
std::string failed_trials(ProbeGuest& guest) {
  std::string failures;
  for (const Trial trial : {Trial::kInt3, Trial::kCmpxchg16b, Trial::kXrstor}) {
    if (trial == Trial::kXrstor && !host_has_xsave()) continue;
    if (auto result = guest.attempt(trial); !result)
      failures += (failures.empty() ? "" : "; ") + result.error().chain();
  }
  return failures;
}

KvmStatus judge(const std::string& path) {
  auto hypervisor = create(path);
  if (!hypervisor) return closed(path, hypervisor.error());
  auto guest = ProbeGuest::create(**hypervisor);
  if (!guest)
    return {.fitness = KvmFitness::kBroken,
            .reason = fmt::format("{} cannot make a small VM: {}", path, guest.error().chain())};
  const auto speeds = measure(**guest);
  if (!speeds)
    return {.fitness = KvmFitness::kBroken,
            .reason = fmt::format("{}: {}", path, speeds.error().chain())};
  KvmStatus status;
  status.ring0_speed = speeds->ring0;
  status.ring3_speed = speeds->ring3;
  const std::string figures = fmt::format(
      "{:.1f} million instructions/s in ring 0, {:.1f} in ring 3",
      static_cast<double>(speeds->ring0) / 1e6, static_cast<double>(speeds->ring3) / 1e6);
  if (speeds->ring0_slower_by(kEmulationRatio)) {
    status.fitness = KvmFitness::kEmulating;
    status.reason = fmt::format("{} interprets the guest's kernel: {}", path, figures);
    return status;
  }
  const std::string failures = failed_trials(**guest);
  status.fitness = failures.empty() ? KvmFitness::kFit : KvmFitness::kBroken;
  status.reason = failures.empty() ? fmt::format("{} runs guests natively: {}", path, figures)
                                   : fmt::format("{}: {} ({})", path, failures, figures);
  return status;
}

}  // namespace

std::string_view name_of(KvmFitness fitness) {
  switch (fitness) {
    case KvmFitness::kMissing:
      return "missing";
    case KvmFitness::kForbidden:
      return "forbidden";
    case KvmFitness::kBroken:
      return "broken";
    case KvmFitness::kEmulating:
      return "emulating";
    case KvmFitness::kFit:
      return "fit";
  }
  return "?";
}

KvmStatus probe(const std::string& device_path) {
  const auto begin = std::chrono::steady_clock::now();
  KvmStatus status = judge(device_path);
  const auto elapsed = std::chrono::steady_clock::now() - begin;
  status.probe_nanoseconds =
      static_cast<u64>(std::chrono::duration_cast<std::chrono::nanoseconds>(elapsed).count());
  return status;
}

}  // namespace smol::hypervisor::kvm

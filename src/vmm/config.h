// What a machine is to be made of: the typed form of smol-vmm's command line (and, later, of its API's requests).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "hypervisor/hypervisor.h"

namespace smol::vmm {

enum class Accel { kAuto, kKvm, kSoft };
Result<Accel> parse_accel(std::string_view name);

enum class ConsoleMode { kOff, kNull, kTty, kFile };
struct ConsoleConfig {
  ConsoleMode mode = ConsoleMode::kOff;
  std::string file;
};

struct DiskConfig {
  std::string path;
  bool read_only = false;
  std::string serial;
};

struct VsockConfig {
  u64 cid = 3;
  std::string socket;  // '@name': abstract namespace
};

// How the machine is described to its kernel: ACPI tables, or an Intel MP table and virtio devices on the command line.
enum class Tables { kAcpi, kMpTable };
Result<Tables> parse_tables(std::string_view name);

struct MachineConfig {
  Accel accel = Accel::kAuto;
  hypervisor::CpuModel model = hypervisor::CpuModel::kHost;
  u32 cpus = 1;
  u64 memory_size = 512 * kMiB;  // bytes
  // One memfd (on) or anonymous memory in huge pages (off). Unset: off with KVM, where huge pages spare some thousand
  // page faults a boot; on with the software CPU, which gains nothing.
  std::optional<bool> memory_shared;
  std::string kernel, initramfs, cmdline;
  Tables tables = Tables::kAcpi;
  ConsoleConfig serial{.mode = ConsoleMode::kTty, .file = {}};
  ConsoleConfig console;
  std::vector<DiskConfig> disks;
  std::optional<VsockConfig> vsock;
  bool rng = true;
  std::string rng_source;  // empty: getrandom(2)
  bool debug_exit = false;
  bool deterministic = false;
  std::string stats_file;
  u64 started_at = 0;  // CLOCK_MONOTONIC ns at which whoever started us began; 0: our own start
};

// Everything that can be told wrong without touching the host; the error names the setting and its limits.
Result<> validate(const MachineConfig& config);

}  // namespace smol::vmm

#include "vmm/config.h"

#include <sys/sysinfo.h>

namespace smol::vmm {
namespace {

constexpr u64 kLeastMemory =
    2 * kMiB;  // a boot sector's worth; each loader asks for what its kernel needs

u64 host_memory() {
  struct sysinfo info{};
  return ::sysinfo(&info) == 0 ? u64{info.totalram} * info.mem_unit : ~u64{0};
}

Result<> validate(const DiskConfig& disk) {
  if (disk.path.empty() && !disk.window) return fail("--disk needs path=FILE");
  if (disk.num_queues < 1 || disk.num_queues > 32)
    return fail("--disk: num_queues={}: a disk has 1 to 32 queues", disk.num_queues);
  if (disk.queue_size < 4 || disk.queue_size > 1024 || !std::has_single_bit(disk.queue_size))
    return fail("--disk: queue_size={}: a power of two from 4 to 1024 is needed", disk.queue_size);
  return base::validate(disk.rate_limit, "--disk");
}

}  // namespace

Result<Accel> parse_accel(std::string_view name) {
  if (name == "auto") return Accel::kAuto;
  if (name == "kvm") return Accel::kKvm;
  if (name == "soft") return Accel::kSoft;
  return fail("unknown accelerator '{}': auto, kvm and soft are known", name);
}

Result<Tables> parse_tables(std::string_view name) {
  if (name == "acpi") return Tables::kAcpi;
  if (name == "mp") return Tables::kMpTable;
  return fail("unknown tables '{}': acpi and mp are known", name);
}

Result<> validate(const MachineConfig& config) {
  if (config.kernel.empty() && config.kernel_bytes.empty())
    return fail("no kernel was given (--kernel FILE)");
  if (config.cpus == 0 || config.cpus > kMostCpus)
    return fail("{} CPUs were asked for: a machine has 1 to {}", config.cpus, kMostCpus);
  if (config.deterministic && config.cpus > 1)
    return fail("--deterministic runs one CPU, not {}: several take turns as the host's threads do",
                config.cpus);
  if (config.memory_size < kLeastMemory)
    return fail("{} bytes of memory are too few: give at least {} MiB", config.memory_size,
                kLeastMemory / kMiB);
  if (config.memory_size % kPageSize != 0)
    return fail("{} bytes of memory are not a multiple of {}", config.memory_size, kPageSize);
  if (const u64 host = host_memory(); config.memory_size > host)
    return fail("{} MiB of memory are more than this host's {} MiB: give less",
                config.memory_size / kMiB, host / kMiB);
  if (config.serial.mode == ConsoleMode::kTty && config.console.mode == ConsoleMode::kTty)
    return fail("--serial tty and --console tty both want the terminal: give it to one of them");
  if (config.memory_mergeable && config.memory_shared.value_or(false))
    return fail("--memory mergeable=on is for private memory: leave shared=on away");
  if (config.balloon && config.balloon->size >= config.memory_size)
    return fail("a balloon of {} bytes would leave nothing of {} bytes of memory",
                config.balloon->size, config.memory_size);
  if (config.vsock) {
    if (config.vsock->cid < 3 || config.vsock->cid >= 0xffffffff)
      return fail("vsock CID {}: guests have CIDs from 3 to 4294967294", config.vsock->cid);
    if (config.vsock->socket.empty() || config.vsock->socket == "@")
      return fail("--vsock needs socket=PATH");
  }
  for (const DiskConfig& disk : config.disks) TRY(validate(disk));
  return {};
}

}  // namespace smol::vmm

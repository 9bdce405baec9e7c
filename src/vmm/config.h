// What a machine is to be made of: the typed form of smol-vmm's command line (and, later, of its
// API's requests).
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "base/rate_limiter.h"
#include "base/result.h"
#include "hypervisor/hypervisor.h"
#include "memory/guest_memory.h"
#include "sandbox/plan.h"
#include "storage/open_disk.h"

namespace smol::vmm {

enum class Accel { kAuto, kKvm, kSoft };
Result<Accel> parse_accel(std::string_view name);

enum class ConsoleMode { kOff, kNull, kTty, kFile };
struct ConsoleConfig {
  ConsoleMode mode = ConsoleMode::kOff;
  std::string file;
  u64 limit = 0;  // kTty, with standard output a regular file: bytes that it holds at most, see
                  // console_log.h; 0: any number
};

// One disk of the guest (vda, vdb, ... in order).
struct DiskConfig {
  std::string id;  // empty: _disk0, _disk1, ...
  std::string path;
  std::optional<storage::Window>
      window{};  // a read-only raw image inside an open file, instead of path
  bool read_only = false;
  storage::ImageType image_type = storage::ImageType::kAuto;
  bool backing_files = false;  // a qcow2 image may name files that lie under it
  bool direct = false;         // O_DIRECT
  u32 num_queues = 1;          // 1..32
  u32 queue_size = 256;        // a power of two, 4..1024
  base::RateLimiterConfig rate_limit;
  std::string serial;
};

enum class NetMode { kUser, kTap, kSegment };
using MacAddress = std::array<u8, 6>;

// One network interface of the guest (eth0, eth1, ... in order). What does not belong to the mode
// stays empty.
struct NetConfig {
  std::string id;  // empty: _net0, _net1, ...
  NetMode mode = NetMode::kTap;
  std::optional<MacAddress> mac;       // unset: a random one of ours (52:54:00:xx:xx:xx)
  u16 mtu = 0;                         // 0: not told to the guest (1500); else 68..65520
  u32 num_queues = 2;                  // receive and transmit queues together: even, 2..64
  u32 queue_size = 256;                // a power of two, 64..1024
  base::RateLimiterConfig rate_limit;  // each direction has it to itself

  // kTap: one of both. With neither the kernel names a new device.
  std::string tap;
  std::vector<int> fds;  // an open TAP with IFF_VNET_HDR: one, or one for each queue pair
  std::string bridge;    // the TAP is added to it
  std::string ip;        // the host's address on the TAP, IPv4
  std::string mask;

  // kUser: HOST ports that lead to the guest, `[tcp:|udp:][ADDR:]HOST:GUEST`; if `allow` is given
  // only those peers.
  std::vector<std::string> publish, allow;
  bool restrict_egress = false;    // `allow` was given, perhaps empty: nothing else passes
  std::string dns;                 // empty: the host's
  std::vector<std::string> hosts;  // NAME:ADDRESS or NAME:host-gateway: names of the user's own
  bool host_access = true;         // the gateway's addresses lead to the host's loopback
  std::string egress_log;          // file of JSON lines

  // kSegment: a directory that the members share, and this machine's name and IPv4 address on it.
  std::string segment, name;
};

// A host directory that the guest may use, in the 9P device that all shares have in common.
struct ShareConfig {
  std::string tag;   // its name in the guest's listing of shares
  std::string path;  // a directory
  bool read_only = false;
  std::optional<u32> uid,
      gid;  // owner that the guest is shown for each file; unset: src/share/owner.h
};

// Memory that the guest gives back to the host.
struct BalloonConfig {
  u64 size = 0;                     // bytes that the guest is asked to give up
  bool deflate_on_oom = true;       // it may take them back rather than kill a process
  bool free_page_reporting = true;  // it tells what is free, which the host then takes
};

struct VsockConfig {
  u64 cid = 3;
  std::string socket;  // '@name': abstract namespace
};

// How the machine is described to its kernel: ACPI tables, or an Intel MP table and virtio devices
// on the command line.
enum class Tables { kAcpi, kMpTable };
Result<Tables> parse_tables(std::string_view name);

inline constexpr u32 kMostCpus = 32;

struct MachineConfig {
  Accel accel = Accel::kAuto;
  hypervisor::CpuModel model = hypervisor::CpuModel::kHost;
  u32 cpus = 1;
  u64 memory_size = 512 * kMiB;  // bytes
  // One memfd (on) or anonymous memory in huge pages (off). Unset: off with KVM, where huge pages
  // spare some thousand page faults a boot; on with the software CPU, which gains nothing.
  std::optional<bool> memory_shared;
  memory::HugePageAdvice memory_thp = memory::HugePageAdvice::kUsual;
  bool memory_hugepages = false;  // from the host's pool (hugetlb)
  bool memory_mergeable = false;  // KSM; private memory
  // The launcher's word about the cgroup that this process is in (sandbox::Plan::cgroup).
  std::string cgroup;
  std::string kernel, initramfs, cmdline;
  // Instead of the files; read while the machine is made, and owned by the caller.
  ConstByteSpan kernel_bytes, initramfs_bytes;
  Tables tables = Tables::kAcpi;
  ConsoleConfig serial{.mode = ConsoleMode::kTty, .file = {}};
  ConsoleConfig console;
  std::vector<DiskConfig> disks;
  std::vector<NetConfig> nets;
  std::optional<VsockConfig> vsock;
  std::optional<BalloonConfig> balloon;
  std::vector<ShareConfig> shares;
  bool share_device =
      false;  // there even without shares, for those that are added to the running machine
  bool rng = true;
  std::string rng_source;  // empty: getrandom(2)
  bool debug_exit = false;
  bool deterministic = false;
  std::string stats_file;
  sandbox::SeccompMode seccomp = sandbox::SeccompMode::kKill;
  bool confined = true;  // namespaces, Landlock, limits (vmm/confine.h)
  std::vector<sandbox::PathRule>
      more_paths;      // that the monitor may reach beside what is named here
  u64 started_at = 0;  // CLOCK_MONOTONIC ns at which whoever started us began; 0: our own start
};

// Everything that can be told wrong without touching the host; the error names the setting and its
// limits.
Result<> validate(const MachineConfig& config);

}  // namespace smol::vmm

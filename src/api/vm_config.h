// The machine's description as the API has it: Cloud Hypervisor's VmConfig (its names, units and
// defaults; source: its OpenAPI document, version 42), with what is ours beside it (marked).
// Members of theirs that this monitor does not have are known to json.cc, which takes them at their
// neutral value and refuses others by name.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"

namespace smol::api {

struct CpusConfig {
  u32 boot_vcpus = 1;
  u32 max_vcpus = 1;
};

struct MemoryConfig {
  u64 size = 512 * kMiB;       // bytes
  std::optional<bool> shared;  // unset: what suits the accelerator
  bool hugepages = false;
  bool mergeable = false;
  std::optional<bool> thp;
};

struct PayloadConfig {
  std::optional<std::string> kernel, cmdline, initramfs;
};

struct TokenBucket {
  u64 size = 0;
  std::optional<u64> one_time_burst;
  u64 refill_time = 0;  // ms
};

struct RateLimiterConfig {
  std::optional<TokenBucket> bandwidth;  // bytes
  std::optional<TokenBucket> ops;
};

struct DiskConfig {
  std::optional<std::string> id;
  std::string path;
  bool readonly = false;
  bool direct = false;
  std::optional<u32> num_queues, queue_size;
  std::optional<std::string> image_type;  // Raw, Qcow2
  bool backing_files = false;
  std::optional<std::string> serial;
  std::optional<RateLimiterConfig> rate_limiter_config;
};

struct NetConfig {
  std::optional<std::string> id;
  std::optional<std::string> tap, bridge, ip, mask, mac;
  std::optional<u32> mtu, num_queues, queue_size;
  std::optional<RateLimiterConfig> rate_limiter_config;
  // Ours.
  std::optional<std::string> mode;  // user, tap, segment
  std::vector<std::string> publish;
  std::optional<std::vector<std::string>> allow;  // there, but empty: nothing passes
  std::vector<std::string> hosts;                 // NAME:ADDRESS
  std::optional<bool> host_access;
  std::optional<std::string> dns, egress_log, segment, name;
};

struct RngConfig {
  std::string src = "/dev/urandom";
};

struct BalloonConfig {
  u64 size = 0;  // bytes
  bool deflate_on_oom = false;
  bool free_page_reporting = false;
};

enum class ConsoleMode { kOff, kNull, kTty, kFile };
struct ConsoleConfig {
  ConsoleMode mode = ConsoleMode::kNull;
  std::optional<std::string> file;
};

struct VsockConfig {
  std::optional<std::string> id;
  u64 cid = 3;
  std::string socket;
};

// Ours: a directory of the host for the guest.
struct ShareConfig {
  std::string tag, path;
  bool read_only = false;
  std::optional<u32> uid, gid;  // owner that the guest is shown
};

// Of theirs, nothing; ours: what the flags of the same name say.
struct PlatformConfig {
  std::optional<std::string> accel, cpu_model, tables;
  std::optional<bool> deterministic;
};

struct VmConfig {
  std::optional<CpusConfig> cpus;
  std::optional<MemoryConfig> memory;
  PayloadConfig payload;
  std::vector<DiskConfig> disks;
  std::vector<NetConfig> net;
  std::optional<RngConfig> rng;
  std::optional<BalloonConfig> balloon;
  std::optional<ConsoleConfig> serial, console;
  std::optional<VsockConfig> vsock;
  std::optional<std::vector<ShareConfig>>
      shares;  // ours; there, but empty: shares can be added later
  std::optional<PlatformConfig> platform;
};

}  // namespace smol::api

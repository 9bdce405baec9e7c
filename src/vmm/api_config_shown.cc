// A MachineConfig as the API shows it. What is empty or at its default is left out.
#include "vmm/api_config.h"

namespace smol::vmm {
namespace {

std::optional<std::string> if_any(const std::string& text) {
  return text.empty() ? std::nullopt : std::optional(text);
}

api::ConsoleConfig shown(const ConsoleConfig& console) {
  switch (console.mode) {
    case ConsoleMode::kOff:
      return {.mode = api::ConsoleMode::kOff, .file = {}};
    case ConsoleMode::kNull:
      return {.mode = api::ConsoleMode::kNull, .file = {}};
    case ConsoleMode::kTty:
      return {.mode = api::ConsoleMode::kTty, .file = {}};
    case ConsoleMode::kFile:
      return {.mode = api::ConsoleMode::kFile, .file = console.file};
  }
  return {};
}

std::optional<api::TokenBucket> shown(const base::TokenBucketConfig& bucket) {
  if (bucket.size == 0) return std::nullopt;
  api::TokenBucket out{.size = bucket.size, .one_time_burst = {}, .refill_time = bucket.refill_ms};
  if (bucket.one_time_burst != 0) out.one_time_burst = bucket.one_time_burst;
  return out;
}

std::optional<api::RateLimiterConfig> shown(const base::RateLimiterConfig& limit) {
  api::RateLimiterConfig out{.bandwidth = shown(limit.bandwidth), .ops = shown(limit.operations)};
  if (!out.bandwidth && !out.ops) return std::nullopt;
  return out;
}

api::NetConfig shown(const NetConfig& net) {
  api::NetConfig out;
  out.id = if_any(net.id);
  out.tap = if_any(net.tap);
  out.bridge = if_any(net.bridge);
  out.ip = if_any(net.ip);
  out.mask = if_any(net.mask);
  if (net.mac)
    out.mac = fmt::format("{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", (*net.mac)[0], (*net.mac)[1],
                          (*net.mac)[2], (*net.mac)[3], (*net.mac)[4], (*net.mac)[5]);
  if (net.mtu != 0) out.mtu = net.mtu;
  out.num_queues = net.num_queues;
  out.queue_size = net.queue_size;
  out.rate_limiter_config = shown(net.rate_limit);
  out.mode = net.mode == NetMode::kUser ? "user" : net.mode == NetMode::kTap ? "tap" : "segment";
  out.publish = net.publish;
  if (net.restrict_egress) out.allow = net.allow;
  out.dns = if_any(net.dns);
  out.hosts = net.hosts;
  if (!net.host_access) out.host_access = false;
  out.egress_log = if_any(net.egress_log);
  out.segment = if_any(net.segment);
  out.name = if_any(net.name);
  return out;
}

api::DiskConfig shown(const DiskConfig& disk) {
  api::DiskConfig out;
  out.id = if_any(disk.id);
  out.path = disk.path;
  out.readonly = disk.read_only;
  out.direct = disk.direct;
  out.backing_files = disk.backing_files;
  out.num_queues = disk.num_queues;
  out.queue_size = disk.queue_size;
  if (disk.image_type != storage::ImageType::kAuto)
    out.image_type = disk.image_type == storage::ImageType::kRaw ? "Raw" : "Qcow2";
  out.rate_limiter_config = shown(disk.rate_limit);
  out.serial = if_any(disk.serial);
  return out;
}

}  // namespace

api::VmConfig api_config(const MachineConfig& config) {
  api::VmConfig out;
  out.cpus = api::CpusConfig{.boot_vcpus = config.cpus, .max_vcpus = config.cpus};
  out.memory = api::MemoryConfig{};
  out.memory->size = config.memory_size;
  out.memory->shared = config.memory_shared;
  out.memory->hugepages = config.memory_hugepages;
  out.memory->mergeable = config.memory_mergeable;
  if (config.memory_thp == memory::HugePageAdvice::kAsk) out.memory->thp = true;
  if (config.memory_thp == memory::HugePageAdvice::kRefuse) out.memory->thp = false;
  out.payload = {.kernel = if_any(config.kernel),
                 .cmdline = if_any(config.cmdline),
                 .initramfs = if_any(config.initramfs)};
  for (const DiskConfig& disk : config.disks) out.disks.push_back(shown(disk));
  for (const NetConfig& net : config.nets) out.net.push_back(shown(net));
  if (config.rng)
    out.rng = api::RngConfig{.src = config.rng_source.empty() ? "/dev/urandom" : config.rng_source};
  if (config.balloon)
    out.balloon = api::BalloonConfig{.size = config.balloon->size,
                                     .deflate_on_oom = config.balloon->deflate_on_oom,
                                     .free_page_reporting = config.balloon->free_page_reporting};
  out.serial = shown(config.serial);
  out.console = shown(config.console);
  if (config.vsock)
    out.vsock =
        api::VsockConfig{.id = {}, .cid = config.vsock->cid, .socket = config.vsock->socket};
  if (config.share_device || !config.shares.empty()) out.shares.emplace();
  for (const ShareConfig& share : config.shares)
    out.shares->push_back({.tag = share.tag,
                           .path = share.path,
                           .read_only = share.read_only,
                           .uid = share.uid,
                           .gid = share.gid});
  return out;
}

}  // namespace smol::vmm

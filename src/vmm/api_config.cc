#include "vmm/api_config.h"

#include "vmm/options.h"

namespace smol::vmm {
namespace {

// Options as the command line has them. Values stand in quotes, so that commas and brackets in them
// are only characters.
class OptionText {
 public:
  OptionText& add(std::string_view key, std::string_view value) {
    put(key);
    put_value(value);
    return *this;
  }
  OptionText& add(std::string_view key, const std::optional<std::string>& value) {
    return value ? add(key, std::string_view(*value)) : *this;
  }
  OptionText& add(std::string_view key, std::optional<u64> value) {
    return value ? add(key, std::string_view(fmt::format("{}", *value))) : *this;
  }
  // Only when it is on: off is what a flag is by itself.
  OptionText& add_if(std::string_view key, bool value) {
    return value ? add(key, std::string_view("on")) : *this;
  }
  OptionText& add(std::string_view key, const std::vector<std::string>& values) {
    put(key);
    text_ += '[';
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (i != 0) text_ += ',';
      put_value(values[i]);
    }
    text_ += ']';
    return *this;
  }
  OptionText& add(const std::optional<api::RateLimiterConfig>& limit) {
    if (!limit) return *this;
    add("bw", limit->bandwidth);
    return add("ops", limit->ops);
  }
  // Quotes have no way to stand in a value.
  Result<std::string> text() const {
    if (bad_) return fail("\"{}\" has a quotation mark in it, which is not possible here", *bad_);
    return text_;
  }

 private:
  void put(std::string_view key) { text_ += fmt::format("{}{}=", text_.empty() ? "" : ",", key); }
  void put_value(std::string_view value) {
    if (value.find('"') != value.npos) bad_ = value;
    text_ += fmt::format("\"{}\"", value);
  }
  OptionText& add(std::string_view prefix, const std::optional<api::TokenBucket>& bucket) {
    if (!bucket) return *this;
    add(fmt::format("{}_size", prefix), std::optional<u64>(bucket->size));
    add(fmt::format("{}_refill_time", prefix), std::optional<u64>(bucket->refill_time));
    return add(fmt::format("{}_one_time_burst", prefix), bucket->one_time_burst);
  }

  std::string text_;
  std::optional<std::string> bad_;
};

ConsoleConfig console_config(const api::ConsoleConfig& console) {
  ConsoleConfig out{.mode = ConsoleMode::kOff, .file = console.file.value_or("")};
  switch (console.mode) {
    case api::ConsoleMode::kOff:
      out.mode = ConsoleMode::kOff;
      break;
    case api::ConsoleMode::kNull:
      out.mode = ConsoleMode::kNull;
      break;
    case api::ConsoleMode::kTty:
      out.mode = ConsoleMode::kTty;
      break;
    case api::ConsoleMode::kFile:
      out.mode = ConsoleMode::kFile;
      break;
  }
  return out;
}

Result<> read_platform(const api::PlatformConfig& platform, MachineConfig& out) {
  if (platform.accel) {
    TRY_ASSIGN(out.accel, parse_accel(*platform.accel));
  }
  if (platform.cpu_model) {
    TRY_ASSIGN(out.model, hypervisor::parse_cpu_model(*platform.cpu_model));
  }
  if (platform.tables) {
    TRY_ASSIGN(out.tables, parse_tables(*platform.tables));
  }
  if (platform.deterministic) out.deterministic = *platform.deterministic;
  return {};
}

Result<> read_cpus_and_memory(const api::VmConfig& config, MachineConfig& out) {
  if (config.cpus) {
    const auto model = out.model;  // the text says nothing of it
    TRY_ASSIGN(const std::string text, OptionText()
                                           .add("boot", u64{config.cpus->boot_vcpus})
                                           .add("max", u64{config.cpus->max_vcpus})
                                           .text());
    TRY(parse_cpus(text, out));
    out.model = model;
  }
  if (!config.memory) return {};
  const api::MemoryConfig& memory = *config.memory;
  OptionText text;
  text.add("size", memory.size)
      .add_if("hugepages", memory.hugepages)
      .add_if("mergeable", memory.mergeable);
  if (memory.shared) text.add("shared", std::string_view(*memory.shared ? "on" : "off"));
  if (memory.thp) text.add("thp", std::string_view(*memory.thp ? "on" : "off"));
  TRY_ASSIGN(const std::string options, text.text());
  return parse_memory(options, out);
}

}  // namespace

Result<DiskConfig> disk_config(const api::DiskConfig& disk) {
  OptionText text;
  text.add("path", std::string_view(disk.path))
      .add_if("readonly", disk.readonly)
      .add_if("direct", disk.direct);
  if (disk.image_type) {
    // "Raw" in the API, "raw" on the command line.
    std::string type = *disk.image_type;
    for (char& c : type) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    text.add("image_type", std::string_view(type));
  }
  text.add_if("backing_files", disk.backing_files).add("serial", disk.serial).add("id", disk.id);
  text.add("num_queues", disk.num_queues)
      .add("queue_size", disk.queue_size)
      .add(disk.rate_limiter_config);
  TRY_ASSIGN(const std::string options, text.text());
  return parse_disk(options);
}

Result<NetConfig> net_config(const api::NetConfig& net, const std::vector<int>& fds) {
  OptionText text;
  text.add("mode", net.mode)
      .add("id", net.id)
      .add("tap", net.tap)
      .add("bridge", net.bridge)
      .add("ip", net.ip);
  text.add("mask", net.mask)
      .add("mac", net.mac)
      .add("mtu", net.mtu)
      .add("num_queues", net.num_queues);
  text.add("queue_size", net.queue_size).add(net.rate_limiter_config);
  if (!net.publish.empty()) text.add("publish", net.publish);
  if (net.allow) text.add("allow", *net.allow);
  if (!net.hosts.empty()) text.add("hosts", net.hosts);
  if (net.host_access) text.add("host_access", std::string_view(*net.host_access ? "on" : "off"));
  text.add("dns", net.dns)
      .add("egress_log", net.egress_log)
      .add("segment", net.segment)
      .add("name", net.name);
  std::vector<std::string> numbers;
  for (const int fd : fds) numbers.push_back(std::to_string(fd));
  if (!fds.empty()) text.add("fd", numbers);
  TRY_ASSIGN(const std::string options, text.text());
  return parse_net(options);
}

Result<VsockConfig> vsock_config(const api::VsockConfig& vsock) {
  return VsockConfig{.cid = vsock.cid, .socket = vsock.socket};
}

ShareConfig share_config(const api::ShareConfig& share) {
  return {.tag = share.tag,
          .path = share.path,
          .read_only = share.read_only,
          .uid = share.uid,
          .gid = share.gid};
}

Result<MachineConfig> machine_config(const api::VmConfig& config, const MachineConfig& base) {
  MachineConfig out;
  out.accel = base.accel;
  out.seccomp = base.seccomp;
  out.confined = base.confined;
  out.more_paths = base.more_paths;
  out.model = base.model;
  out.tables = base.tables;
  out.debug_exit = base.debug_exit;
  out.deterministic = base.deterministic;
  out.stats_file = base.stats_file;
  out.started_at = base.started_at;
  out.kernel = config.payload.kernel.value_or("");
  out.initramfs = config.payload.initramfs.value_or("");
  out.cmdline = config.payload.cmdline.value_or("");
  if (config.platform) TRY(read_platform(*config.platform, out));
  TRY(read_cpus_and_memory(config, out));
  out.serial = console_config(
      config.serial.value_or(api::ConsoleConfig{.mode = api::ConsoleMode::kNull, .file = {}}));
  out.console = console_config(
      config.console.value_or(api::ConsoleConfig{.mode = api::ConsoleMode::kTty, .file = {}}));
  for (const api::DiskConfig& disk : config.disks) {
    TRY_ASSIGN(auto parsed, disk_config(disk));
    out.disks.push_back(std::move(parsed));
  }
  for (const api::NetConfig& net : config.net) {
    TRY_ASSIGN(auto parsed, net_config(net));
    out.nets.push_back(std::move(parsed));
  }
  if (config.vsock) {
    TRY_ASSIGN(out.vsock, vsock_config(*config.vsock));
  }
  if (config.balloon)
    out.balloon = {.size = config.balloon->size,
                   .deflate_on_oom = config.balloon->deflate_on_oom,
                   .free_page_reporting = config.balloon->free_page_reporting};
  // getrandom(2) is the same source without a descriptor.
  if (config.rng && config.rng->src != "/dev/urandom") out.rng_source = config.rng->src;
  out.share_device = config.shares.has_value();
  if (config.shares)
    for (const api::ShareConfig& share : *config.shares) out.shares.push_back(share_config(share));
  TRY(validate(out));
  return out;
}

}  // namespace smol::vmm

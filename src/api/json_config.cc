// VmConfig's members. "neutral" ones are Cloud Hypervisor's that this monitor does not have.
#include "api/json_config.h"

#include "api/json.h"

namespace smol::api {

template <class Archive>
void describe(Archive& a, CpusConfig& c) {
  a.member("boot_vcpus", c.boot_vcpus, Need::kRequired);
  a.member("max_vcpus", c.max_vcpus, Need::kRequired);
  a.neutral("topology", "null");
  a.neutral("affinity", "null");
  a.neutral("kvm_hyperv", "false");
  a.neutral("max_phys_bits", "46");
  a.neutral("features", "{\"amx\":false}");
  a.neutral("nested", "true");
}

template <class Archive>
void describe(Archive& a, MemoryConfig& c) {
  a.member("size", c.size, Need::kRequired);
  a.member("shared", c.shared);
  a.member("hugepages", c.hugepages);
  a.member("mergeable", c.mergeable);
  a.member("thp", c.thp);
  a.neutral("hugepage_size", "null");
  a.neutral("hotplug_size", "null");
  a.neutral("hotplugged_size", "null");
  a.neutral("hotplug_method", "\"Acpi\"");
  a.neutral("prefault", "false");
  a.neutral("zones", "null");
}

template <class Archive>
void describe(Archive& a, PayloadConfig& c) {
  a.member("kernel", c.kernel);
  a.member("cmdline", c.cmdline);
  a.member("initramfs", c.initramfs);
  a.neutral("firmware", "null");
  a.neutral("igvm", "null");
  a.neutral("host_data", "null");
}

template <class Archive>
void describe(Archive& a, TokenBucket& c) {
  a.member("size", c.size, Need::kRequired);
  a.member("one_time_burst", c.one_time_burst);
  a.member("refill_time", c.refill_time, Need::kRequired);
}

template <class Archive>
void describe(Archive& a, RateLimiterConfig& c) {
  a.member("bandwidth", c.bandwidth);
  a.member("ops", c.ops);
}

template <class Archive>
void describe(Archive& a, DiskConfig& c) {
  a.member("id", c.id);
  a.member("path", c.path, Need::kRequired);
  a.member("readonly", c.readonly);
  a.member("direct", c.direct);
  a.member("num_queues", c.num_queues);
  a.member("queue_size", c.queue_size);
  a.member("image_type", c.image_type);
  a.member("backing_files", c.backing_files);
  a.member("serial", c.serial);
  a.member("rate_limiter_config", c.rate_limiter_config);
  a.neutral("rate_limit_group", "null");
  a.neutral("iommu", "false");
  a.neutral("pci_segment", "0");
  a.neutral("vhost_user", "false");
  a.neutral("vhost_socket", "null");
  a.neutral("queue_affinity", "null");
  a.neutral("disable_io_uring", "false");
  a.neutral("disable_aio", "false");
  a.neutral("sparse", "true");
}

template <class Archive>
void describe(Archive& a, NetConfig& c) {
  a.member("id", c.id);
  a.member("tap", c.tap);
  a.member("bridge", c.bridge);
  a.member("ip", c.ip);
  a.member("mask", c.mask);
  a.member("mac", c.mac);
  a.member("mtu", c.mtu);
  a.member("num_queues", c.num_queues);
  a.member("queue_size", c.queue_size);
  a.member("rate_limiter_config", c.rate_limiter_config);
  a.member("mode", c.mode);
  a.member("publish", c.publish);
  a.member("allow", c.allow);
  a.member("dns", c.dns);
  a.member("hosts", c.hosts);
  a.member("host_access", c.host_access);
  a.member("egress_log", c.egress_log);
  a.member("segment", c.segment);
  a.member("name", c.name);
  a.neutral("host_mac", "null");
  a.neutral("fds", "null");
  a.neutral("iommu", "false");
  a.neutral("pci_segment", "0");
  a.neutral("vhost_user", "false");
  a.neutral("vhost_socket", "null");
  a.neutral("vhost_mode", "\"Client\"");
  a.neutral("offload_tso", "true");
  a.neutral("offload_ufo", "true");
  a.neutral("offload_csum", "true");
}

template <class Archive>
void describe(Archive& a, RngConfig& c) {
  a.member("src", c.src, Need::kRequired);
  a.neutral("iommu", "false");
}

template <class Archive>
void describe(Archive& a, BalloonConfig& c) {
  a.member("size", c.size, Need::kRequired);
  a.member("deflate_on_oom", c.deflate_on_oom);
  a.member("free_page_reporting", c.free_page_reporting);
}

template <>
struct Names<ConsoleMode> {
  static constexpr const char* kNames[] = {"Off", "Null", "Tty", "File"};
};

template <class Archive>
void describe(Archive& a, ConsoleConfig& c) {
  a.member("mode", c.mode, Need::kRequired);
  a.member("file", c.file);
  a.neutral("socket", "null");
  a.neutral("iommu", "false");
}

template <class Archive>
void describe(Archive& a, VsockConfig& c) {
  a.member("id", c.id);
  a.member("cid", c.cid, Need::kRequired);
  a.member("socket", c.socket, Need::kRequired);
  a.neutral("iommu", "false");
  a.neutral("pci_segment", "0");
}

template <class Archive>
void describe(Archive& a, ShareConfig& c) {
  a.member("tag", c.tag, Need::kRequired);
  a.member("path", c.path, Need::kRequired);
  a.member("read_only", c.read_only);
  a.member("uid", c.uid);
  a.member("gid", c.gid);
}

template <class Archive>
void describe(Archive& a, PlatformConfig& c) {
  a.member("accel", c.accel);
  a.member("cpu_model", c.cpu_model);
  a.member("tables", c.tables);
  a.member("deterministic", c.deterministic);
  for (const char* const name :
       {"iommu_segments", "iommu_address_width", "serial_number", "uuid", "oem_strings"})
    a.neutral(name, "null");
  a.neutral("num_pci_segments", "1");
  a.neutral("tdx", "false");
  a.neutral("sev_snp", "false");
}

template <class Archive>
void describe(Archive& a, VmConfig& c) {
  a.member("cpus", c.cpus);
  a.member("memory", c.memory);
  a.member("payload", c.payload, Need::kRequired);
  a.member("disks", c.disks);
  a.member("net", c.net);
  a.member("rng", c.rng);
  a.member("balloon", c.balloon);
  a.member("serial", c.serial);
  a.member("console", c.console);
  a.member("vsock", c.vsock);
  a.member("shares", c.shares);
  a.member("platform", c.platform);
  for (const char* const name :
       {"fs", "generic_vhost_user", "pmem", "devices", "user_devices", "vdpa", "sgx_epc", "numa",
        "tpm", "rate_limit_groups", "pci_segments", "landlock_rules", "preserved_fds"})
    a.neutral(name, "null");
  for (const char* const name : {"iommu", "watchdog", "pvpanic", "landlock_enable"})
    a.neutral(name, "false");
  a.neutral("debug_console", "{\"mode\":\"Off\"}");
}

template <class T>
Result<T> parse_config(std::string_view text, std::string_view what) {
  return parse_as<T>(text, what);
}
template Result<VmConfig> parse_config<VmConfig>(std::string_view, std::string_view);
template Result<DiskConfig> parse_config<DiskConfig>(std::string_view, std::string_view);
template Result<NetConfig> parse_config<NetConfig>(std::string_view, std::string_view);
template Result<VsockConfig> parse_config<VsockConfig>(std::string_view, std::string_view);
template Result<ShareConfig> parse_config<ShareConfig>(std::string_view, std::string_view);

void read_config(Reader& reader, const Json& json, VmConfig& out) { reader.read(json, out); }
std::string to_json(const VmConfig& config) { return text_of(config); }
std::string to_json(const ShareConfig& share) { return text_of(share); }

}  // namespace smol::api

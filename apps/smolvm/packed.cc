// `machine create --from`: a named machine out of a capsule or a `.smolmachine` file. Its settings
// become the record's, where the command line says nothing else; its root is copied to the
// machine's folder, so that the file may go. The kernel is this installation's.
#include "packed.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdio>

#include "image/container/config.h"
#include "pack.h"

namespace smolvm {
namespace {

using namespace smol;

Result<image::Container> open_packed(const Invocation& invocation) {
  const std::string path = invocation.text("from");
  TRY_ASSIGN(const auto policy, pack_policy(invocation));
  TRY_ASSIGN(auto file, base::open_file(path, O_RDONLY));
  return image::Container::open(std::move(file), path, policy);
}

void apply_ports(const image::PackedConfig& config, machines::MachineSpec& spec) {
  spec.network.enabled = config.net;
  for (const image::PackedPort& port : config.ports) {
    if (port.host == 0) {
      spec.exposed.push_back(fmt::format("{}/{}", port.guest, port.protocol));
      continue;
    }
    machines::Port published;
    published.host = port.host;
    published.guest = port.guest;
    published.udp = port.protocol == "udp";
    spec.ports.push_back(std::move(published));
    spec.network.enabled = true;
  }
}

}  // namespace

Result<> apply_packed(const Invocation& invocation, machines::MachineSpec& spec) {
  for (const char* const other : {"image", "rootfs", "smolfile"})
    if (invocation.has(other))
      return fail("--from and --{} both say what the machine is made of", other);
  TRY_ASSIGN(const auto container, open_packed(invocation));
  const image::Section* const section = container.find(image::SectionKind::kConfig);
  if (section == nullptr) return fail("{} has no section 'config'", container.name());
  TRY_ASSIGN(const std::string text,
             container.read_section(*section, image::PackedConfig::kMaxText));
  TRY_ASSIGN(const auto config, image::PackedConfig::parse(text));
  spec.cpus = config.cpus;
  spec.memory_mib = config.memory_mib;
  spec.environment = config.env;
  spec.directory = config.workdir;
  spec.user = config.user;
  spec.append = config.kernel_cmdline;
  spec.labels.assign(config.labels.begin(), config.labels.end());
  spec.stop_signal = config.stop_signal;
  spec.folders = config.volumes;
  if (!config.workdir.empty()) spec.folders.push_back(config.workdir);
  if (const auto& check = config.healthcheck) {
    constexpr u64 kMillisecond = 1'000'000;
    spec.health = {.command = check->test,
                   .interval_ns = check->interval_ms * kMillisecond,
                   .timeout_ns = check->timeout_ms * kMillisecond,
                   .start_ns = check->start_period_ms * kMillisecond,
                   .retries = check->retries};
  }
  apply_ports(config, spec);
  return {};
}

Result<> unpack_root(const Invocation& invocation, const std::string& to) {
  TRY_ASSIGN(const auto container, open_packed(invocation));
  const image::Section* const section = container.find(image::SectionKind::kRoot);
  if (section == nullptr) return fail("{} has no section 'root'", container.name());
  // Under its own name only when it is whole: after a kill a start finds no root, and says so.
  const std::string partial = to + ".partial";
  TRY_ASSIGN(const auto file, base::open_file(partial, O_RDWR | O_CREAT | O_EXCL, 0600));
  auto copied = container.copy_section(*section, file.get(), to);
  if (copied && ::fsync(file.get()) != 0) copied = fail_errno("cannot make {} durable", to);
  if (copied && ::rename(partial.c_str(), to.c_str()) != 0)
    copied = fail_errno("cannot rename {} to {}", partial, to);
  if (!copied) ::unlink(partial.c_str());
  return copied;
}

}  // namespace smolvm

#include "machines/smolfile_spec.h"

namespace smol::machines {
namespace {

using image::Smolfile;

Result<> add_ports(const Smolfile& file, std::string_view key,
                   const std::vector<std::string>& texts, MachineSpec& spec) {
  for (const std::string& text : texts) {
    // One number is the same port on both sides.
    const bool both = text.find(':') == std::string::npos;
    auto port =
        parse_port(both ? fmt::format("{}:{}", text.substr(0, text.find('/')), text) : text);
    if (!port) return wrap(port.error(), "{}", file.at(key));
    spec.ports.push_back(std::move(*port));
    spec.network.enabled = true;
  }
  return {};
}

Result<> add_volumes(const Smolfile& file, std::string_view key,
                     const std::vector<std::string>& texts, MachineSpec& spec) {
  for (const std::string& text : texts) {
    auto volume = parse_volume(text);
    if (!volume) return wrap(volume.error(), "{}", file.at(key));
    spec.volumes.push_back(std::move(*volume));
  }
  return {};
}

void add_network(const Smolfile& file, MachineSpec& spec) {
  const Smolfile::Network& from = file.network;
  Network& network = spec.network;
  network.allow_host.insert(network.allow_host.end(), from.allow_hosts.begin(),
                            from.allow_hosts.end());
  network.allow_cidr.insert(network.allow_cidr.end(), from.allow_cidrs.begin(),
                            from.allow_cidrs.end());
  network.hosts.insert(network.hosts.end(), from.add_hosts.begin(), from.add_hosts.end());
  network.host_access = from.host_access.value_or(network.host_access);
  if (!from.dns.empty()) network.dns = from.dns;
  if (!from.segment.empty()) network.segment = from.segment;
  network.enabled = network.enabled || file.net.value_or(false) || !from.allow_hosts.empty() ||
                    !from.allow_cidrs.empty() || !from.dns.empty() || !from.segment.empty() ||
                    !from.add_hosts.empty();
}

void add_program(const Smolfile& file, MachineSpec& spec) {
  merge_environment(spec.environment, file.env);
  if (!file.workdir.empty()) spec.directory = file.workdir;
  if (!file.user.empty()) spec.user = file.user;
  if (!file.stop_signal.empty()) spec.stop_signal = file.stop_signal;
  spec.init.insert(spec.init.end(), file.init.begin(), file.init.end());
}

// What is only for machines on the developer's host.
Result<> add_dev(const Smolfile& file, MachineSpec& spec) {
  merge_environment(spec.environment, file.dev.env);
  if (!file.dev.workdir.empty()) spec.directory = file.dev.workdir;
  spec.init.insert(spec.init.end(), file.dev.init.begin(), file.dev.init.end());
  TRY(add_ports(file, "dev.ports", file.dev.ports, spec));
  return add_volumes(file, "dev.volumes", file.dev.volumes, spec);
}

void add_supervision(const Smolfile& file, MachineSpec& spec) {
  spec.health = {.command = file.health.exec,
                 .interval_ns = file.health.interval_ns,
                 .timeout_ns = file.health.timeout_ns,
                 .start_ns = file.health.startup_grace_ns,
                 .retries = file.health.retries};
  spec.restart = {.policy = file.restart.policy,
                  .max_retries = file.restart.max_retries,
                  .max_backoff_ns = file.restart.max_backoff_ns};
  spec.exposed = file.expose;
  if (file.service.listen != 0)
    spec.exposed.push_back(
        fmt::format("{}/{}", file.service.listen, file.service.protocol == "udp" ? "udp" : "tcp"));
}

// What both uses have of it.
Result<> add_common(const Smolfile& file, MachineSpec& spec) {
  spec.cpus = file.cpus.value_or(spec.cpus);
  spec.memory_mib = file.memory_mib.value_or(spec.memory_mib);
  spec.storage_gib = file.storage_gib.value_or(spec.storage_gib);
  spec.overlay_gib = file.overlay_gib.value_or(spec.overlay_gib);
  spec.image = file.image;
  add_program(file, spec);
  add_network(file, spec);
  TRY(add_ports(file, "ports", file.ports, spec));
  add_supervision(file, spec);
  for (const auto& label : file.labels) spec.labels.push_back(label);
  spec.ssh_agent = spec.ssh_agent || file.ssh_agent;
  for (const auto& secret : file.secrets)
    (secret.from_env.empty() ? spec.secret_file : spec.secret_env)
        .emplace_back(secret.name, secret.from_env.empty() ? secret.from_file : secret.from_env);
  return {};
}

}  // namespace

Result<> apply_smolfile(const Smolfile& file, MachineSpec& spec) {
  TRY(add_common(file, spec));
  TRY(add_volumes(file, "volumes", file.volumes, spec));
  return add_dev(file, spec);
}

Result<> apply_smolfile_packed(const Smolfile& file, MachineSpec& spec) {
  TRY(add_common(file, spec));
  for (const std::string& text : file.volumes) {
    const auto volume = split_volume(text);
    if (!volume) return wrap(volume.error(), "{}", file.at("volumes"));
    spec.folders.push_back(volume->guest);
  }
  spec.cpus = file.artifact.cpus.value_or(spec.cpus);
  spec.memory_mib = file.artifact.memory_mib.value_or(spec.memory_mib);
  merge_environment(spec.environment, file.artifact.env);
  return {};
}

}  // namespace smol::machines

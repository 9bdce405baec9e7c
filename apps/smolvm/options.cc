#include "options.h"

#include <limits.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "build.h"
#include "images.h"
#include "machines/publish.h"
#include "packed.h"

namespace smolvm {
namespace {

using namespace smol;

Result<std::string> absolute(const std::string& path, std::string_view what) {
  char resolved[PATH_MAX];
  if (::realpath(path.c_str(), resolved) == nullptr)
    return fail_errno("cannot use {} as {}", path, what);
  return std::string(resolved);
}

Result<machines::Pairs> pairs_of(const Invocation& invocation, std::string_view key,
                                 char separator = '=') {
  machines::Pairs out;
  for (const std::string& text : invocation.list(key)) {
    TRY_ASSIGN(auto pair, machines::parse_pair(fmt::format("--{}", key), text, separator));
    out.push_back(std::move(pair));
  }
  return out;
}

// The host's side is a path that need not be there yet.
Result<machines::Pairs> exposed_of(const Invocation& invocation) {
  TRY_ASSIGN(machines::Pairs pairs, pairs_of(invocation, "expose-socket", ':'));
  for (auto& [host, guest] : pairs) {
    std::error_code bad;
    host = std::filesystem::absolute(host, bad).lexically_normal();
    if (bad || host.size() >= sizeof(sockaddr_un::sun_path))
      return fail("--expose-socket {}: not a path of at most {} bytes", host,
                  sizeof(sockaddr_un::sun_path) - 1);
    if (guest.empty() || guest[0] != '/')
      return fail("--expose-socket {}:{}: the guest's side must be an absolute path", host, guest);
  }
  return pairs;
}

Result<> add_network(const Invocation& invocation, machines::Network& network) {
  network.segment = invocation.text("network", network.segment);
  network.dns = invocation.text("dns", network.dns);
  for (const auto& entry : invocation.list("allow-cidr")) network.allow_cidr.push_back(entry);
  for (const auto& entry : invocation.list("allow-host")) network.allow_host.push_back(entry);
  // A part of the network asks for the network.
  network.enabled = network.enabled || invocation.has("net") || invocation.has("network") ||
                    invocation.has("dns") || invocation.has("allow-cidr") ||
                    invocation.has("allow-host") || invocation.has("port") ||
                    invocation.has("add-host") || invocation.has("publish-all");
  return add_host_options(invocation, network);
}

// What the command line adds replaces what a Smolfile has at the same place.
template <class Entries, class Same>
void add_over(Entries& earlier, Entries later, const Same& same) {
  std::erase_if(earlier, [&](const auto& old) {
    return std::any_of(later.begin(), later.end(),
                       [&](const auto& entry) { return same(old, entry); });
  });
  for (auto& entry : later) earlier.push_back(std::move(entry));
}

Result<> add_pairs(const Invocation& invocation, std::string_view key, machines::Pairs& pairs,
                   char separator = '=') {
  TRY_ASSIGN(auto later, pairs_of(invocation, key, separator));
  add_over(pairs, std::move(later),
           [](const auto& a, const auto& b) { return a.first == b.first; });
  return {};
}

Result<> add_secrets(const Invocation& invocation, machines::MachineSpec& spec) {
  TRY(add_pairs(invocation, "secret-env", spec.secret_env));
  TRY(add_pairs(invocation, "secret-file", spec.secret_file));
  for (const auto& [guest, host] : spec.secret_file)
    if (host.empty() || host[0] != '/')
      return fail("--secret-file '{}={}': the file must be an absolute path", guest, host);
  return {};
}

Result<> add_program(const Invocation& invocation, machines::MachineSpec& spec) {
  TRY_ASSIGN(const auto environment, machines::parse_environment(invocation.list("env")));
  machines::merge_environment(spec.environment, environment);
  spec.directory = invocation.text("workdir", spec.directory);
  spec.user = invocation.text("user", spec.user);
  spec.hostname = invocation.text("hostname");
  for (const std::string& line : invocation.list("init")) spec.init.push_back(line);
  return {};
}

Result<> add_mounts(const Invocation& invocation, machines::MachineSpec& spec) {
  TRY_ASSIGN(auto volumes, volumes_of(invocation));
  add_over(spec.volumes, std::move(volumes),
           [](const auto& a, const auto& b) { return a.guest == b.guest; });
  TRY_ASSIGN(auto ports, ports_of(invocation));
  add_over(spec.ports, std::move(ports),
           [](const auto& a, const auto& b) { return a.guest == b.guest && a.udp == b.udp; });
  return {};
}

}  // namespace

Result<std::vector<machines::Volume>> volumes_of(const Invocation& invocation) {
  std::vector<machines::Volume> out;
  for (const std::string& text : invocation.list("volume")) {
    TRY_ASSIGN(auto volume, machines::parse_volume(text));
    out.push_back(std::move(volume));
  }
  return out;
}

Result<std::vector<machines::Port>> ports_of(const Invocation& invocation) {
  std::vector<machines::Port> out;
  for (const std::string& text : invocation.list("port")) {
    TRY_ASSIGN(auto port, machines::parse_port(text));
    out.push_back(std::move(port));
  }
  return out;
}

Result<> add_host_options(const Invocation& invocation, machines::Network& network) {
  for (const auto& entry : invocation.list("add-host")) network.hosts.push_back(entry);
  const std::string access = invocation.text("host-access", network.host_access ? "on" : "off");
  if (access != "on" && access != "off")
    return fail("--host-access {}: on and off are known", access);
  network.host_access = access == "on";
  return {};
}

machines::HostLimits limits_of(const Invocation& invocation, const machines::HostLimits& now) {
  return {.memory_mib = invocation.number("memory-max", now.memory_mib),
          .cpu_percent = invocation.number("cpu-max", now.cpu_percent),
          .processes = invocation.number("pids-max", now.processes)};
}

Result<machines::MachineSpec> spec_of(const Invocation& invocation, const std::string& name,
                                      std::size_t* entrypoint) {
  machines::MachineSpec spec;
  spec.name = name;
  machines::ProgramChoice choice;
  Invocation asked = invocation;  // and what the Smolfile asks for
  if (invocation.has("from")) TRY(apply_packed(invocation, spec));
  if (invocation.has("smolfile")) {
    TRY_ASSIGN(const auto file, image::read_smolfile(invocation.text("smolfile")));
    const bool packs = std::string_view(invocation.verb->path) == "pack create";
    TRY(packs ? machines::apply_smolfile_packed(file, spec) : machines::apply_smolfile(file, spec));
    if (file.build && !invocation.has("image") && !invocation.has("rootfs")) {
      TRY_ASSIGN(const auto store, open_images());
      TRY_ASSIGN(const auto image, build_smolfile(store, {.smolfile = file.path, .quiet = true}));
      spec.image = image.reference;
    }
    choice.entrypoint =
        packs && file.artifact.entrypoint ? file.artifact.entrypoint : file.entrypoint;
    choice.command = packs && file.artifact.cmd ? file.artifact.cmd : file.cmd;
    if (packs && !file.artifact.platform.empty())
      asked.values.try_emplace("oci-platform", std::vector{file.artifact.platform});
  }
  spec.cpus = invocation.number("cpus", spec.cpus);
  spec.memory_mib = invocation.number("mem", spec.memory_mib);
  spec.storage_gib = invocation.number("storage", spec.storage_gib);
  spec.overlay_gib = invocation.number("overlay", spec.overlay_gib);
  spec.host_limits = limits_of(invocation, spec.host_limits);
  TRY(add_program(invocation, spec));
  TRY(add_mounts(invocation, spec));
  TRY(add_network(invocation, spec.network));
  TRY(add_pairs(invocation, "label", spec.labels));
  const std::string kernel = invocation.text("kernel");
  spec.kernel = kernel;
  if (!kernel.empty() && kernel != "micro" && kernel != "full") {
    TRY_ASSIGN(spec.kernel, absolute(kernel, "a kernel"));
  }
  spec.append = invocation.text("append", spec.append);
  spec.accel = invocation.text("accel", spec.accel);
  TRY(add_secrets(invocation, spec));
  TRY(add_pairs(invocation, "mount-socket", spec.mount_socket, ':'));
  TRY_ASSIGN(spec.expose_socket, exposed_of(invocation));
  spec.ssh_agent = spec.ssh_agent || invocation.has("ssh-agent");
  TRY(machines::validate(spec));  // before anything is pulled
  TRY_ASSIGN(const std::size_t entrypoint_words, choose_root(asked, choice, spec));
  if (entrypoint != nullptr) *entrypoint = entrypoint_words;
  if (invocation.has("publish-all")) TRY(machines::publish_exposed(spec));
  TRY(machines::validate(spec));
  return spec;
}

}  // namespace smolvm

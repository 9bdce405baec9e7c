#include "options.h"

#include <limits.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

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

Result<machines::Network> network_of(const Invocation& invocation) {
  machines::Network network;
  network.segment = invocation.text("network");
  network.dns = invocation.text("dns");
  network.allow_cidr = invocation.list("allow-cidr");
  network.allow_host = invocation.list("allow-host");
  // A part of the network asks for the network.
  network.enabled = invocation.has("net") || invocation.has("network") || invocation.has("dns") ||
                    invocation.has("allow-cidr") || invocation.has("allow-host") ||
                    invocation.has("port");
  return network;
}

Result<> secrets_of(const Invocation& invocation, machines::MachineSpec& spec) {
  TRY_ASSIGN(spec.secret_env, pairs_of(invocation, "secret-env"));
  TRY_ASSIGN(spec.secret_file, pairs_of(invocation, "secret-file"));
  for (const auto& [guest, host] : spec.secret_file)
    if (host.empty() || host[0] != '/')
      return fail("--secret-file '{}={}': the file must be an absolute path", guest, host);
  return {};
}

}  // namespace

Result<std::string> root_of(const Invocation& invocation) {
  if (invocation.has("image") && invocation.has("rootfs"))
    return fail("-I and --rootfs both name a root file system");
  if (invocation.has("image")) {
    const std::string image = invocation.text("image");
    struct stat status{};
    if (::stat(image.c_str(), &status) == 0 && S_ISDIR(status.st_mode))
      return absolute(image, "a root file system");
    return fail(
        "-I {}: image references and archives are not supported yet, a root file system's "
        "directory is",
        image);
  }
  if (!invocation.has("rootfs")) return std::string();
  return absolute(invocation.text("rootfs"), "a root file system");
}

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

Result<machines::MachineSpec> spec_of(const Invocation& invocation, const std::string& name) {
  machines::MachineSpec spec;
  spec.name = name;
  spec.cpus = invocation.number("cpus", spec.cpus);
  spec.memory_mib = invocation.number("mem", spec.memory_mib);
  spec.storage_gib = invocation.number("storage", spec.storage_gib);
  spec.overlay_gib = invocation.number("overlay", spec.overlay_gib);
  TRY_ASSIGN(spec.environment, machines::parse_environment(invocation.list("env")));
  spec.directory = invocation.text("workdir");
  spec.user = invocation.text("user");
  spec.hostname = invocation.text("hostname");
  TRY_ASSIGN(spec.volumes, volumes_of(invocation));
  TRY_ASSIGN(spec.ports, ports_of(invocation));
  TRY_ASSIGN(spec.network, network_of(invocation));
  TRY_ASSIGN(spec.labels, pairs_of(invocation, "label"));
  TRY_ASSIGN(spec.rootfs, root_of(invocation));
  const std::string kernel = invocation.text("kernel");
  spec.kernel = kernel;
  if (!kernel.empty() && kernel != "micro" && kernel != "full") {
    TRY_ASSIGN(spec.kernel, absolute(kernel, "a kernel"));
  }
  spec.append = invocation.text("append");
  spec.accel = invocation.text("accel", spec.accel);
  spec.init = invocation.list("init");
  spec.command = invocation.command;
  TRY(secrets_of(invocation, spec));
  TRY_ASSIGN(spec.mount_socket, pairs_of(invocation, "mount-socket", ':'));
  TRY_ASSIGN(spec.expose_socket, exposed_of(invocation));
  spec.ssh_agent = invocation.has("ssh-agent");
  TRY(machines::validate(spec));
  return spec;
}

}  // namespace smolvm

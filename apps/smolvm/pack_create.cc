// `pack create`: a machine's description and its root to one file.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "default_image.h"
#include "image/capsule/pack.h"
#include "image/sbom/sbom.h"
#include "image/tree/byte_source.h"
#include "image/tree/erofs.h"
#include "image/tree/host_directory.h"
#include "image/tree/layer.h"
#include "options.h"
#include "pack_base.h"

namespace smolvm {
namespace {

using namespace smol;

constexpr u32 kErofsMagic = 0xe0f5e1e2;  // at 1024; Linux fs/erofs/erofs_fs.h

struct Root {
  base::UniqueFd fd;
  u64 size = 0;  // bytes
};

Result<bool> is_erofs(int fd, const std::string& path) {
  TRY_ASSIGN(const u64 size, base::file_size(fd, path));
  if (size < 2048) return false;
  u8 word[4];
  TRY(base::read_exact_at(fd, word, 1024, path));
  return base::load<u32>(word) == kErofsMagic;
}

// In a file without a name beside the output: roots may be larger than memory.
Result<base::UniqueFd> nameless_file(const std::string& output) {
  const std::size_t slash = output.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : output.substr(0, slash + 1);
  auto file = base::open_file(folder, O_TMPFILE | O_RDWR, 0600);
  return file ? std::move(file) : base::create_memfd("root", 0);
}

Result<Root> write_root(const image::Tree& tree, const std::string& output,
                        const image::ErofsOptions& options) {
  Root root;
  TRY_ASSIGN(root.fd, nameless_file(output));
  TRY_ASSIGN(const image::ErofsInfo info, image::write_erofs(tree, root.fd.get(), options));
  root.size = info.bytes;
  return root;
}

// A directory, an EROFS image, or a tar archive.
Result<Root> make_root(const std::string& path, const std::string& output) {
  struct stat status{};
  if (::stat(path.c_str(), &status) != 0)
    return fail_errno("cannot use {} as a root file system", path);
  image::Tree tree;
  image::ErofsOptions options;
  if (const char* const epoch = std::getenv("SOURCE_DATE_EPOCH"); epoch != nullptr)
    options.latest = image::Timestamp{.seconds = std::atoll(epoch), .nanoseconds = 0};
  if (S_ISDIR(status.st_mode)) {
    TRY(image::add_host_directory(tree, path));
    return write_root(tree, output, options);
  }
  Root root;
  TRY_ASSIGN(root.fd, base::open_file(path, O_RDONLY));
  TRY_ASSIGN(const bool erofs, is_erofs(root.fd.get(), path));
  if (erofs) {
    TRY_ASSIGN(root.size, base::file_size(root.fd.get(), path));
    return root;
  }
  TRY_ASSIGN(auto source, image::decompressed(image::fd_bytes(root.fd.get(), path), path));
  const auto applied = image::apply_layer(tree, std::move(source),
                                          {.name = path, .diff_id = {}, .whiteouts = false});
  if (!applied)
    return wrap(applied.error(), "{} is neither a directory, an EROFS image nor a tar archive",
                path);
  return write_root(tree, output, options);
}

std::optional<image::PackedHealthcheck> health_of(const machines::Health& health) {
  if (health.command.empty()) return std::nullopt;
  constexpr u64 kMillisecond = 1'000'000;
  image::PackedHealthcheck out{.test = health.command};
  // A day is the format's bound.
  const auto milliseconds = [](u64 ns, u64 otherwise) {
    return ns == 0 ? otherwise : std::clamp<u64>(ns / kMillisecond, 1, u64{24} * 3600 * 1000);
  };
  out.interval_ms = milliseconds(health.interval_ns, out.interval_ms);
  out.timeout_ms = milliseconds(health.timeout_ns, out.timeout_ms);
  out.start_period_ms = milliseconds(health.start_ns, 0);
  if (health.retries != 0) out.retries = static_cast<u32>(std::min<u64>(health.retries, 1000));
  return out;
}

// Published ports, and behind them those that are only exposed.
std::vector<image::PackedPort> ports_of(const machines::MachineSpec& spec) {
  std::vector<image::PackedPort> out;
  const auto add = [&](const machines::Port& port) {
    const char* const protocol = port.udp ? "udp" : "tcp";
    if (std::ranges::none_of(out, [&](const image::PackedPort& other) {
          return other.guest == port.guest && other.protocol == protocol &&
                 (port.host == 0 || other.host == port.host);
        }))
      out.push_back({.host = port.host, .guest = port.guest, .protocol = protocol});
  };
  for (const machines::Port& port : spec.ports) add(port);
  for (const std::string& text : spec.exposed)
    if (const auto port = machines::parse_exposed(text)) add(*port);
  return out;
}

// What `./app ARGUMENTS` replaces is the image's CMD, so entry point and command stay apart.
image::PackedConfig config_of(const machines::MachineSpec& spec, std::size_t entrypoint) {
  image::PackedConfig config;
  config.name = spec.name;
  const auto middle =
      spec.command.begin() + static_cast<std::ptrdiff_t>(std::min(entrypoint, spec.command.size()));
  config.entrypoint.assign(spec.command.begin(), middle);
  config.cmd.assign(middle, spec.command.end());
  config.env = spec.environment;
  config.workdir = spec.directory;
  config.user = spec.user;
  config.cpus = static_cast<u32>(spec.cpus);
  config.memory_mib = spec.memory_mib;
  config.ports = ports_of(spec);
  for (const std::string& folder : spec.folders)
    if (folder != spec.directory) config.volumes.push_back(folder);
  config.healthcheck = health_of(spec.health);
  config.net = spec.network.enabled;
  config.stop_signal = spec.stop_signal;
  for (const auto& [key, value] : spec.labels) config.labels[key] = value;
  config.image = spec.image;
  config.image_digest = spec.image_digest;
  config.kernel_cmdline = spec.append;
  return config;
}

Result<> check_supported(const machines::MachineSpec& spec) {
  if (!spec.volumes.empty())
    return fail("-v: a directory of this host cannot be packed; give it when the capsule runs");
  if (!spec.secret_env.empty() || !spec.secret_file.empty())
    return fail("secrets are not packed: whoever has the file would have them");
  // What a capsule's configuration has no place for is refused: lost silently it would be missed.
  if (!spec.init.empty()) return fail("init: a packed machine runs no commands before its program");
  if (spec.ssh_agent || !spec.mount_socket.empty() || !spec.expose_socket.empty())
    return fail(
        "sockets of this host (--ssh-agent, --mount-socket, --expose-socket) are not packed");
  const machines::Network& network = spec.network;
  if (!network.segment.empty() || !network.dns.empty() || !network.allow_cidr.empty() ||
      !network.allow_host.empty() || !network.hosts.empty() || !network.host_access)
    return fail(
        "a packed machine has no rules for its network (--network, --dns, --allow-cidr, "
        "--allow-host, --add-host, --host-access, or a Smolfile's [network])");
  for (const machines::Port& port : spec.ports)
    if (port.address != machines::Port().address)
      return fail("-p {}: an address of this host is not packed; give it when the capsule runs",
                  machines::to_text(port));
  if (spec.storage_gib != 0) return fail("--storage: a packed machine has no second disk");
  if (!spec.hostname.empty()) return fail("--hostname: a capsule's is its name (-n)");
  if (spec.rootfs.empty()) return fail("nothing to pack: -I IMAGE, --rootfs DIR or -s Smolfile");
  if (spec.command.empty())
    return fail("there is no program to run: --entrypoint PROGRAM, or a command behind --");
  return {};
}

// The newest time in the root, which no clock is in: the same inputs give the same bytes.
Result<u64> creation_time(const image::Tree& root) {
  if (const char* const epoch = std::getenv("SOURCE_DATE_EPOCH"); epoch != nullptr)
    return std::strtoull(epoch, nullptr, 10);
  i64 newest = 0;
  TRY(root.walk([&](const std::string&, image::NodeId id) -> Result<> {
    newest = std::max(newest, root.node(id).mtime.seconds);
    return {};
  }));
  return static_cast<u64>(newest);
}

Result<std::string> output_of(const Invocation& invocation) {
  const std::string output = invocation.text("output");
  if (output.empty()) return fail("-o FILE: where to write is not said");
  return output;
}

std::string name_from(const std::string& output) {
  std::string name = output.substr(output.rfind('/') + 1);
  if (const std::size_t dot = name.find('.'); dot != std::string::npos && dot != 0)
    name.resize(dot);
  return machines::validate_name(name) ? name : "app";
}

// What the root holds; of kernel, init and program `pack sbom` says it, as a rebase changes them.
Result<> describe_root(const Root& root, const std::string& name, image::PackParts& parts) {
  TRY_ASSIGN(const image::Tree tree, image::read_erofs(root.fd.get(), 0, root.size, "the root"));
  TRY_ASSIGN(parts.created, creation_time(tree));
  TRY_ASSIGN(parts.sbom, image::write_sbom({.name = name,
                                            .tool_version = SMOL_VERSION,
                                            .created = parts.created,
                                            .parts = {},
                                            .root = &tree}));
  return {};
}

}  // namespace

Result<int> run_pack_create(const Invocation& invocation) {
  TRY_ASSIGN(const std::string output, output_of(invocation));
  const std::string name = invocation.text("name", name_from(output));
  std::size_t entrypoint = 0;
  TRY_ASSIGN(const machines::MachineSpec spec, spec_of(invocation, name, &entrypoint));
  TRY(check_supported(spec));
  TRY_ASSIGN(const PackKernel kernel, choose_kernel(spec.kernel, spec.cpus));
  TRY_ASSIGN(const Root root, make_root(spec.rootfs, output));
  image::PackParts parts{.config = config_of(spec, entrypoint),
                         .program = {},
                         .split = invocation.has("split"),
                         .kernel = kernel.path,
                         .initramfs = init_image(),
                         .root = root.fd.get(),
                         .root_size = root.size,
                         .sbom = {},
                         .created = 0,
                         .cache = packs_folder().value_or("")};
  parts.config.extra[image::kExtraKernel] = kernel.kind;
  TRY(describe_root(root, name, parts));
  if (invocation.has("single-file") || !output.ends_with(".smolmachine")) {
    TRY_ASSIGN(parts.program, find_runtime());
  }
  if (parts.split) TRY(share_base(kernel.path, init_image()));
  TRY_ASSIGN(const auto key, signing_key(invocation));
  TRY_ASSIGN(const u64 size, image::write_pack(output, parts, key ? &*key : nullptr));
  fmt::print("Packed: {} ({} bytes)\n", output, size);
  return 0;
}

}  // namespace smolvm

#include "machines/guest_setup.h"

#include "guest/protocol/protocol.h"

namespace smol::machines {
namespace {

using Strings = std::vector<std::string_view>;

Result<std::vector<u8>> encode(u32 kind, u32 flags, const Strings& strings,
                               ConstByteSpan tail = {}) {
  const smol_setup head{kind, flags};
  const ConstByteSpan bytes = base::bytes_of(head);
  std::vector<u8> out(bytes.begin(), bytes.end());
  for (const std::string_view text : strings) {
    if (text.find('\0') != std::string_view::npos)
      return fail("'{}' holds a zero byte", text.substr(0, text.find('\0')));
    out.insert(out.end(), text.begin(), text.end());
    out.push_back(0);
  }
  out.insert(out.end(), tail.begin(), tail.end());
  if (out.size() > SMOL_MAX_CONFIG)
    return fail("a setting for the guest takes {} bytes, {} are allowed", out.size(),
                static_cast<u32>(SMOL_MAX_CONFIG));
  return out;
}

Result<> check_path(const std::string& path, std::string_view what) {
  if (path.empty() || path.front() != '/')
    return fail("{} '{}': a path in the guest begins with '/'", what, path);
  return {};
}

Result<std::string> join(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& word : words) {
    if (word.empty() || word.find(' ') != std::string::npos)
      return fail("'{}' is not a network setting", word);
    if (!out.empty()) out += ' ';
    out += word;
  }
  return out;
}

ConstByteSpan bytes_in(std::string_view text) {
  return {reinterpret_cast<const u8*>(text.data()), text.size()};
}

Result<std::vector<u8>> encode_service(const GuestService& service) {
  TRY_ASSIGN(const std::vector<u8> program, encode_config(service.program));
  const u32 flags =
      static_cast<u32>(service.restart) | (service.main ? u32{SMOL_SERVICE_MAIN} : 0) |
      (service.init ? u32{SMOL_SERVICE_INIT} : 0) |
      (static_cast<u32>(service.stop_signal) << SMOL_SERVICE_STOP_SHIFT & SMOL_SERVICE_STOP_MASK);
  return encode(SMOL_SETUP_SERVICE, flags, {service.name}, program);
}

// Collects frames and keeps the protocol's bounds.
class Setups {
 public:
  Result<> add(Result<std::vector<u8>> payload) {
    TRY(payload);
    if (++count_ > SMOL_MAX_SETUPS)
      return fail("more than {} settings for the guest", static_cast<u32>(SMOL_MAX_SETUPS));
    bytes_ += payload->size();
    if (bytes_ > SMOL_MAX_SETUP_BYTES)
      return fail("the guest's settings take more than {} bytes",
                  static_cast<u32>(SMOL_MAX_SETUP_BYTES));
    append_frame(frames_, SMOL_FRAME_SETUP, *payload);
    return {};
  }
  std::vector<u8> take() && { return std::move(frames_); }

 private:
  std::vector<u8> frames_;
  u64 count_ = 0, bytes_ = 0;
};

}  // namespace

GuestNetwork user_network() {
  return {.interface = "eth0",
          .addresses = {"10.0.2.15/24", "fd00:0:0:2::15/64"},
          .gateways = {"10.0.2.2", "fe80::2"},
          .dns = {"10.0.2.3"},
          .search = {}};
}

Result<std::vector<u8>> encode_mount(const GuestMount& mount) {
  TRY(check_path(mount.path, "mount"));
  if (mount.tag.empty() || mount.tag.find('/') != std::string::npos)
    return fail("'{}' is not a share's tag", mount.tag);
  return encode(SMOL_SETUP_MOUNT, mount.read_only ? u32{SMOL_MOUNT_READ_ONLY} : 0,
                {mount.tag, mount.path});
}

Result<std::vector<u8>> encode_unmount(const std::string& path) {
  TRY(check_path(path, "unmount"));
  return encode(SMOL_SETUP_UNMOUNT, 0, {path});
}

Result<std::vector<u8>> encode_disk(const GuestDisk& disk) {
  TRY(check_path(disk.path, "disk"));
  return encode(SMOL_SETUP_DISK, disk.read_only ? u32{SMOL_MOUNT_READ_ONLY} : 0,
                {disk.device, disk.type, disk.path});
}

Result<std::vector<u8>> encode_secret(const GuestSecret& secret) {
  if (secret.name.empty() || secret.name == "." || secret.name == ".." ||
      secret.name.find_first_of("/=") != std::string::npos)
    return fail("'{}' is not a secret's name", secret.name);
  if (secret.environment && secret.value.find('\0') != std::string::npos)
    return fail("the secret '{}' holds a zero byte, which a variable cannot", secret.name);
  return encode(SMOL_SETUP_SECRET, secret.environment ? u32{SMOL_SECRET_ENVIRONMENT} : 0,
                {secret.name, secret.owner}, bytes_in(secret.value));
}

Result<std::vector<u8>> encode_forward(const GuestForward& forward) {
  TRY(check_path(forward.path, "socket"));
  return encode(SMOL_SETUP_FORWARD, 0, {forward.path, std::to_string(forward.port), forward.owner});
}

Result<std::vector<u8>> encode_network(const GuestNetwork& network) {
  TRY_ASSIGN(const std::string addresses, join(network.addresses));
  TRY_ASSIGN(const std::string gateways, join(network.gateways));
  TRY_ASSIGN(const std::string dns, join(network.dns));
  TRY_ASSIGN(const std::string search, join(network.search));
  const std::string mtu = network.mtu == 0 ? "" : std::to_string(network.mtu);
  return encode(SMOL_SETUP_NETWORK, 0, {network.interface, addresses, gateways, dns, search, mtu});
}

Result<std::vector<u8>> encode_time(u64 time_ns) {
  return encode(SMOL_SETUP_TIME, 0, {std::to_string(time_ns)});
}

Result<std::vector<u8>> encode_setup(const GuestSetup& setup) {
  Setups out;
  const GuestRoot& root = setup.root;
  if (root.kind != SMOL_ROOT_INITRAMFS)
    TRY(out.add(encode(SMOL_SETUP_ROOT, root.kind,
                       {root.device, root.type, root.upper_device, root.upper_type})));
  if (setup.time_ns != 0) TRY(out.add(encode_time(setup.time_ns)));
  if (!setup.hostname.empty()) TRY(out.add(encode(SMOL_SETUP_HOSTNAME, 0, {setup.hostname})));
  for (const auto& network : setup.networks) TRY(out.add(encode_network(network)));
  for (const auto& disk : setup.disks) TRY(out.add(encode_disk(disk)));
  for (const auto& mount : setup.mounts) TRY(out.add(encode_mount(mount)));
  for (const auto& folder : setup.folders) {
    TRY(check_path(folder, "folder"));
    TRY(out.add(encode(SMOL_SETUP_FOLDER, 0, {folder})));
  }
  for (const auto& entry : setup.environment)
    TRY(out.add(encode(SMOL_SETUP_ENVIRONMENT, 0, {entry})));
  for (const auto& secret : setup.secrets) TRY(out.add(encode_secret(secret)));
  for (const auto& forward : setup.forwards) TRY(out.add(encode_forward(forward)));
  for (const auto& service : setup.services) TRY(out.add(encode_service(service)));
  return std::move(out).take();
}

}  // namespace smol::machines

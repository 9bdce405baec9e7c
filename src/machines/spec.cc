#include "machines/spec.h"

#include <arpa/inet.h>
#include <limits.h>
#include <netinet/in.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <charconv>
#include <cstdlib>
#include <cstring>

#include "base/fd.h"
#include "machines/image_spec.h"
#include "net/user/nat.h"

namespace smol::machines {
namespace {

constexpr std::size_t kLongestName = 63;

bool plain(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

Result<u16> parse_port_number(std::string_view whole, std::string_view text) {
  unsigned value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value == 0 || value > 65535)
    return fail("port '{}': '{}' is no port number (1 to 65535)", whole, text);
  return static_cast<u16>(value);
}

struct HostAddress {
  sockaddr_storage bytes{};
  socklen_t size = 0;
};

Result<HostAddress> socket_address(const std::string& text, u16 port) {
  HostAddress out;
  auto* const four = reinterpret_cast<sockaddr_in*>(&out.bytes);
  auto* const six = reinterpret_cast<sockaddr_in6*>(&out.bytes);
  if (::inet_pton(AF_INET, text.c_str(), &four->sin_addr) == 1) {
    four->sin_family = AF_INET;
    four->sin_port = htons(port);
    out.size = sizeof(*four);
  } else if (::inet_pton(AF_INET6, text.c_str(), &six->sin6_addr) == 1) {
    six->sin6_family = AF_INET6;
    six->sin6_port = htons(port);
    out.size = sizeof(*six);
  } else {
    return fail("'{}' is no IP address", text);
  }
  return out;
}

// Whether both addresses cannot have one port at the same time. "::" is IPv6 alone.
bool overlap(const std::string& a, const std::string& b) {
  const auto left = net::user::IpAddress::parse(a), right = net::user::IpAddress::parse(b);
  if (!left || !right) return a == b;
  return left->is_v4() == right->is_v4() &&
         (*left == *right || left->is_unspecified() || right->is_unspecified());
}

Result<> validate_ports(const MachineSpec& spec) {
  for (std::size_t i = 0; i < spec.ports.size(); ++i)
    for (std::size_t j = 0; j < i; ++j)
      if (const Port &a = spec.ports[i], &b = spec.ports[j]; !a.automatic && !b.automatic &&
                                                             a.host == b.host && a.udp == b.udp &&
                                                             overlap(a.address, b.address))
        return fail("port {} of the host is published twice ({} and {})", a.host, to_text(b),
                    to_text(a));
  return {};
}

// By the texts' own readers, so that what is stored can be started.
Result<> validate_network(const Network& network) {
  if (!network.dns.empty()) {
    if (const auto good = net::user::parse_resolver(network.dns); !good)
      return wrap(good.error(), "--dns");
  }
  if (!network.segment.empty()) {
    if (const auto good = validate_name(network.segment); !good)
      return wrap(good.error(), "--network");
  }
  for (const std::string& text : network.allow_cidr) {
    const auto rule = net::user::EgressRule::parse(text);
    if (!rule) return wrap(rule.error(), "--allow-cidr");
    if (!rule->cidr) return fail("--allow-cidr: '{}' is a name: --allow-host takes those", text);
  }
  for (const std::string& text : network.allow_host) {
    if (const auto rule = net::user::EgressRule::parse(text); !rule)
      return wrap(rule.error(), "--allow-host");
  }
  net::user::NatConfig scratch;
  for (const std::string& text : network.hosts) {
    if (const auto good = net::user::add_host_name(text, scratch); !good)
      return wrap(good.error(), "--add-host");
  }
  return {};
}

Result<> validate_volumes(const MachineSpec& spec) {
  for (std::size_t i = 0; i < spec.volumes.size(); ++i)
    for (std::size_t j = 0; j < i; ++j)
      if (spec.volumes[i].guest == spec.volumes[j].guest)
        return fail("two volumes have the same place in the guest: {} ({} and {})",
                    spec.volumes[i].guest, spec.volumes[j].host, spec.volumes[i].host);
  return {};
}

}  // namespace

Result<> validate_name(std::string_view name) {
  if (name.empty()) return fail("a machine's name must not be empty");
  if (name.size() > kLongestName)
    return fail("the machine's name '{}...' is {} characters long, {} are allowed",
                name.substr(0, 20), name.size(), kLongestName);
  bool good = plain(name[0]);
  for (const char c : name) good = good && (plain(c) || c == '-' || c == '_' || c == '.');
  if (!good)
    return fail(
        "'{}' is no machine's name: letters, digits, '-', '_' and '.', beginning with a letter or "
        "digit",
        name);
  return {};
}

namespace {

// Limits that no machine could live with.
Result<> validate(const HostLimits& limits, const MachineSpec& spec) {
  constexpr u64 kMostPercent = 100 * 4096;
  const u64 fewest = spec.cpus + 16;  // devices, disks, the API
  if (limits.memory_mib != 0 && limits.memory_mib <= spec.memory_mib)
    return fail(
        "--memory-max {}: the guest alone may use {} MiB, and the host would end a machine "
        "that grows beyond",
        limits.memory_mib, spec.memory_mib);
  if (limits.memory_mib > kMostMemoryMib)
    return fail("--memory-max {}: memory is given in MiB, at most {}", limits.memory_mib,
                kMostMemoryMib);
  if (limits.cpu_percent > kMostPercent)
    return fail("--cpu-max {}: the limit is given in percent of one CPU, at most {}",
                limits.cpu_percent, kMostPercent);
  if (limits.processes != 0 && limits.processes < fewest)
    return fail("--pids-max {}: a machine of {} CPUs needs up to {} threads", limits.processes,
                spec.cpus, fewest);
  return {};
}

}  // namespace

Result<> validate(const MachineSpec& spec) {
  TRY(validate_name(spec.name));
  if (spec.cpus == 0 || spec.cpus > kMostCpus)
    return fail("--cpus {}: a machine has 1 to {} CPUs", spec.cpus, kMostCpus);
  if (spec.memory_mib == 0 || spec.memory_mib > kMostMemoryMib)
    return fail("--mem {}: memory is given in MiB, from 1 to {}", spec.memory_mib, kMostMemoryMib);
  TRY(validate(spec.host_limits, spec));
  if (spec.overlay_gib == 0 || spec.overlay_gib > kMostDiskGib)
    return fail("--overlay {}: the size is given in GiB, from 1 to {}", spec.overlay_gib,
                kMostDiskGib);
  if (spec.storage_gib > kMostDiskGib)
    return fail("--storage {}: the size is given in GiB, at most {}", spec.storage_gib,
                kMostDiskGib);
  if (spec.accel != "auto" && spec.accel != "kvm" && spec.accel != "soft")
    return fail("--accel {}: auto, kvm and soft are known", spec.accel);
  if (!spec.stop_signal.empty() && !signal_number(spec.stop_signal))
    return fail("'{}' is no signal", spec.stop_signal);
  if (!spec.ports.empty() && !spec.network.enabled) return fail("-p needs a network: add --net");
  TRY(validate_network(spec.network));
  TRY(validate_ports(spec));
  return validate_volumes(spec);
}

Result<> check_port(const Port& port) {
  TRY_ASSIGN(const HostAddress address, socket_address(port.address, port.host));
  const base::UniqueFd fd(
      ::socket(address.bytes.ss_family, (port.udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return fail_errno("cannot create a socket to test port {}", port.host);
  const int on = 1;
  // As the publisher has it.
  if (address.bytes.ss_family == AF_INET6)
    ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
  // As a listener has it: a connection of an earlier machine that still lingers does not hold the
  // port.
  if (!port.udp) ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address.bytes), address.size) != 0)
    return fail_errno("port {} of the host ({}) cannot be used", port.host, to_text(port));
  if (!port.udp && ::listen(fd.get(), 1) != 0)
    return fail_errno("port {} of the host ({}) cannot be used", port.host, to_text(port));
  return {};
}

Result<u16> free_port(const std::string& address, bool udp) {
  // Below what Linux gives to connections by itself (Documentation/networking/ip-sysctl.rst,
  // ip_local_port_range): nobody gets it by chance until the machine listens there.
  constexpr u32 kFirst = 20'000, kEnd = 32'768, kTries = 200;
  Result<> last;
  for (u32 i = 0; i < kTries; ++i) {
    u32 random = 0;
    if (::getrandom(&random, sizeof(random), 0) != sizeof(random))
      return fail_errno("cannot get random bytes");
    const u16 port = static_cast<u16>(kFirst + random % (kEnd - kFirst));
    last = check_port({.address = address, .host = port, .guest = port, .udp = udp});
    if (last) return port;
  }
  return wrap(last.error(), "cannot find a free port of {}", address);
}

std::string publish_text(const Port& port) {
  const bool six = port.address.find(':') != std::string::npos;
  return fmt::format("{}:{}{}{}:{}:{}", port.udp ? "udp" : "tcp", six ? "[" : "", port.address,
                     six ? "]" : "", port.host, port.guest);
}

std::optional<Port> parse_exposed(std::string_view text) {
  Port port;
  const std::size_t slash = text.find('/');
  const std::string_view number = text.substr(0, slash);
  const std::string_view protocol = slash == text.npos ? "tcp" : text.substr(slash + 1);
  const auto [end, error] =
      std::from_chars(number.data(), number.data() + number.size(), port.guest);
  if (error != std::errc() || end != number.data() + number.size() || port.guest == 0 ||
      (protocol != "tcp" && protocol != "udp"))
    return std::nullopt;
  port.udp = protocol == "udp";
  return port;
}

void merge_environment(std::vector<std::string>& earlier, const std::vector<std::string>& later) {
  for (const std::string& entry : later) {
    const std::string name = entry.substr(0, entry.find('=') + 1);
    bool replaced = false;
    for (std::string& old : earlier)
      if (!replaced && old.starts_with(name)) {
        old = entry;
        replaced = true;
      }
    if (!replaced) earlier.push_back(entry);
  }
}

Result<> check_host(const MachineSpec& spec) {
  for (const Volume& volume : spec.volumes) {
    struct stat status{};
    if (::stat(volume.host.c_str(), &status) != 0)
      return fail_errno("cannot mount {}", volume.host);
    if (!S_ISDIR(status.st_mode)) return fail("cannot mount {}: not a directory", volume.host);
  }
  if (!spec.rootfs.empty() && ::access(spec.rootfs.c_str(), R_OK) != 0)
    return fail_errno("cannot use {} as a root file system", spec.rootfs);
  for (const Port& port : spec.ports) TRY(check_port(port));
  return {};
}

Result<Volume> split_volume(std::string_view text) {
  const std::size_t colon = text.find(':');
  if (colon == std::string_view::npos || colon == 0)
    return fail("-v '{}': a volume is HOST:GUEST or HOST:GUEST:ro", text);
  Volume volume;
  std::string_view guest = text.substr(colon + 1);
  if (const std::size_t mode = guest.rfind(':'); mode != std::string_view::npos) {
    const std::string_view word = guest.substr(mode + 1);
    if (word != "ro" && word != "rw") return fail("-v '{}': '{}' is neither ro nor rw", text, word);
    volume.read_only = word == "ro";
    guest = guest.substr(0, mode);
  }
  while (guest.size() > 1 && guest.back() == '/') guest.remove_suffix(1);
  if (guest.size() < 2 || guest[0] != '/')
    return fail("-v '{}': the place in the guest must be an absolute path other than /", text);
  volume.guest = guest;
  volume.host = text.substr(0, colon);
  return volume;
}

Result<Volume> parse_volume(std::string_view text) {
  TRY_ASSIGN(Volume volume, split_volume(text));
  const std::string& host = volume.host;
  char resolved[PATH_MAX];
  if (::realpath(host.c_str(), resolved) == nullptr) return fail_errno("cannot mount {}", host);
  struct stat status{};
  if (::stat(resolved, &status) != 0) return fail_errno("cannot mount {}", host);
  if (!S_ISDIR(status.st_mode)) return fail("cannot mount {}: not a directory", host);
  volume.host = resolved;
  return volume;
}

Result<Port> parse_port(std::string_view text) {
  Port port;
  std::string_view rest = text;
  if (const std::size_t slash = rest.rfind('/'); slash != std::string_view::npos) {
    const std::string_view protocol = rest.substr(slash + 1);
    if (protocol != "tcp" && protocol != "udp")
      return fail("port '{}': '{}' is neither tcp nor udp", text, protocol);
    port.udp = protocol == "udp";
    rest = rest.substr(0, slash);
  }
  const std::size_t last = rest.rfind(':');
  if (last == std::string_view::npos) return fail("port '{}': a port is HOST:GUEST", text);
  TRY_ASSIGN(port.guest, parse_port_number(text, rest.substr(last + 1)));
  rest = rest.substr(0, last);
  if (const std::size_t before = rest.rfind(':'); before != std::string_view::npos) {
    std::string_view address = rest.substr(0, before);
    if (address.size() > 1 && address.front() == '[' && address.back() == ']')
      address = address.substr(1, address.size() - 2);
    port.address = address;
    if (const auto good = socket_address(port.address, 1); !good)
      return wrap(good.error(), "port '{}'", text);
    rest = rest.substr(before + 1);
  }
  TRY_ASSIGN(port.host, parse_port_number(text, rest));
  return port;
}

Result<std::vector<std::string>> parse_environment(const std::vector<std::string>& entries) {
  std::vector<std::string> out;
  for (const std::string& entry : entries) {
    const std::size_t equals = entry.find('=');
    if (equals == 0 || entry.empty()) return fail("-e '{}': an entry is NAME=value or NAME", entry);
    if (equals != std::string::npos) {
      out.push_back(entry);
    } else if (const char* const value = std::getenv(entry.c_str()); value != nullptr) {
      out.push_back(entry + "=" + value);
    }
  }
  return out;
}

Result<std::pair<std::string, std::string>> parse_pair(std::string_view option,
                                                       std::string_view text, char separator) {
  const std::size_t at = text.find(separator);
  if (at == std::string_view::npos || at == 0)
    return fail("{} '{}': wanted A{}B", option, text, separator);
  return std::pair{std::string(text.substr(0, at)), std::string(text.substr(at + 1))};
}

Result<u64> parse_duration(std::string_view option, std::string_view text) {
  u64 value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  u64 factor = 0;
  if (unit == "ms") factor = 1'000'000;
  if (unit == "s" || unit.empty()) factor = 1'000'000'000;
  if (unit == "m") factor = u64{60} * 1'000'000'000;
  if (unit == "h") factor = u64{3600} * 1'000'000'000;
  if (error != std::errc() || factor == 0 || value == 0 || value > ~u64{0} / 2 / factor)
    return fail("{} {}: a time is a whole number over 0 with ms, s, m or h behind it, as 30s",
                option, text);
  return value * factor;
}

std::string to_text(const Port& port) {
  const bool six = port.address.find(':') != std::string::npos;
  const std::string address = port.address == "127.0.0.1" ? ""
                              : six                       ? fmt::format("[{}]:", port.address)
                                                          : port.address + ":";
  const std::string host = port.host == 0 ? "*" : std::to_string(port.host);
  return fmt::format("{}{}:{}{}", address, host, port.guest, port.udp ? "/udp" : "");
}

std::string to_text(const Volume& volume) {
  return fmt::format("{}:{}{}", volume.host, volume.guest, volume.read_only ? ":ro" : "");
}

}  // namespace smol::machines

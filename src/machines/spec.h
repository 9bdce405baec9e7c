// What a named machine is to be made of: the part of its record that a user decides. Texts of the
// command line are read here into typed values, with errors that name the option and what was
// given.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace smol::machines {

inline constexpr u64 kDefaultOverlayGib = 10;
inline constexpr u64 kMostDiskGib = 8 * 1024;
inline constexpr u64 kMostMemoryMib = u64{1} << 24;
inline constexpr u64 kMostCpus = 32;

struct Volume {
  std::string host;   // absolute, links resolved
  std::string guest;  // absolute
  bool read_only = false;

  bool operator==(const Volume&) const = default;
};

struct Port {
  std::string address = "127.0.0.1";  // of the host
  u16 host = 0, guest = 0;
  bool udp = false;
  bool automatic = false;  // host is chosen at each start (publish.h); 0: not yet

  bool operator==(const Port&) const = default;
};

struct Network {
  bool enabled = false;
  std::string segment;                              // --network NAME; empty: user-mode NAT alone
  std::vector<std::string> allow_cidr, allow_host;  // empty: everything is allowed
  std::string dns;
  std::vector<std::string> hosts{};  // NAME:ADDRESS or NAME:host-gateway: names of the user's own
  bool host_access = true;           // the gateway's addresses lead to the host's loopback

  bool operator==(const Network&) const = default;
};

using Pairs = std::vector<std::pair<std::string, std::string>>;

// How a watcher asks whether a machine is well (`machine monitor`).
struct Health {
  std::vector<std::string> command;  // empty: not at all; else ended with 0 means well
  u64 interval_ns = 0, timeout_ns = 0, start_ns = 0, retries = 0;  // 0: the watcher's defaults

  bool operator==(const Health&) const = default;
};

struct RestartPolicy {
  std::string policy;                       // "": the watcher's default; never, on-failure, always
  u64 max_retries = 0, max_backoff_ns = 0;  // 0: no limit; the watcher's

  bool operator==(const RestartPolicy&) const = default;
};

// What the monitor's process may take of the host, by a cgroup of its own (sandbox/cgroup.h). 0: no
// limit.
struct HostLimits {
  u64 memory_mib = 0;
  u64 cpu_percent = 0;  // of one CPU
  u64 processes = 0;    // threads

  bool operator==(const HostLimits&) const = default;
};

struct MachineSpec {
  std::string name;
  u64 cpus = 1;
  u64 memory_mib = 256;
  std::vector<std::string> environment;  // "NAME=value"
  std::string directory, user, hostname;
  std::vector<Volume> volumes;
  std::vector<Port> ports;
  Network network;
  Pairs labels;
  u64 storage_gib = 0;  // 0: no such disk
  u64 overlay_gib = kDefaultOverlayGib;
  HostLimits host_limits;
  std::string rootfs;  // empty: the embedded image
  // Where rootfs came from, when that was an image: as the user named it, and its manifest's
  // digest.
  std::string image, image_digest;
  std::string kernel, append;  // empty: our own
  std::string accel = "auto";
  std::vector<std::string> init;  // shell commands after each start
  // The machine's main program: it is started with the machine, which ends with it. Empty: none.
  std::vector<std::string> command;
  std::string stop_signal;           // what `stop` sends the main program; "": SIGTERM
  std::vector<std::string> folders;  // in the guest; made where they are missing
  std::vector<std::string> exposed;  // "80/tcp": what an image or a Smolfile says it serves
  Health health;
  RestartPolicy restart;
  Pairs secret_env,
      secret_file;      // name or path in the guest -> environment variable or file of the host
  Pairs mount_socket;   // a Unix socket of the host -> where the guest reaches it
  Pairs expose_socket;  // where the host listens -> a Unix socket in the guest
  bool ssh_agent = false;

  bool operator==(const MachineSpec&) const = default;
};

// 1 to 63 of letters, digits, '-', '_', '.', a letter or digit first: a name is also a folder's and
// a host's.
Result<> validate_name(std::string_view name);
// Everything that can be told wrong of the values alone, doubled ports and mount points among it.
Result<> validate(const MachineSpec& spec);
// What start needs of the host: mounts that are directories, a root that is there, ports that
// nobody has.
Result<> check_host(const MachineSpec& spec);
// A port of the host that can be bound; the Error says which cannot and why.
Result<> check_port(const Port& port);
// A port of the host that nobody has now, for `-P`.
Result<u16> free_port(const std::string& address, bool udp);

Result<Volume> parse_volume(
    std::string_view text);  // HOST:GUEST[:ro|:rw]; HOST must be a directory
// The same without a look at the host: HOST as it is written.
Result<Volume> split_volume(std::string_view text);
Result<Port> parse_port(std::string_view text);  // [ADDRESS:]HOST:GUEST[/tcp|/udp]
// `later` over `earlier`: entries of the same name are replaced where they stand, others follow.
void merge_environment(std::vector<std::string>& earlier, const std::vector<std::string>& later);
// NAME=value as it is, NAME alone with its value from our environment (left out when it is not
// set).
Result<std::vector<std::string>> parse_environment(const std::vector<std::string>& entries);
// `a=b` or, with separator ':', `a:b`; option names the flag in errors.
Result<std::pair<std::string, std::string>> parse_pair(std::string_view option,
                                                       std::string_view text, char separator = '=');
Result<u64> parse_duration(std::string_view option,
                           std::string_view text);  // ns; "30s", "500ms", "2m", "1h"

std::string to_text(const Port& port);
// "tcp:127.0.0.1:8080:80", "udp:[::1]:53:53": as the user-mode network publishes it.
std::string publish_text(const Port& port);
// "80", "80/tcp", "53/udp": a port that an image or a Smolfile exposes; host is 0.
std::optional<Port> parse_exposed(std::string_view text);
std::string to_text(const Volume& volume);

// The spec as JSON text, as the store keeps it, and back. Unknown keys are errors: they come from a
// newer program.
std::string to_json(const MachineSpec& spec);
Result<MachineSpec> spec_from_json(std::string_view text);

}  // namespace smol::machines

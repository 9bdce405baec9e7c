// The configuration of a packed machine: the `config` section of a container, JSON with a version.
// Its schema is in docs/formats/smolmachine.md, "Configuration".
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace smol::image {

struct PackedHealthcheck {
  std::vector<std::string> test;  // a command and its arguments
  u64 interval_ms = 30000;
  u64 timeout_ms = 30000;
  u64 start_period_ms = 0;
  u32 retries = 3;
};

struct PackedPort {
  u16 host = 0;  // 0: only exposed, not published
  u16 guest = 0;
  std::string protocol = "tcp";  // tcp or udp
};

struct PackedConfig {
  static constexpr u32 kVersion = 1;
  static constexpr std::size_t kMaxText = 1 << 20;

  std::string name;
  std::vector<std::string> entrypoint;
  std::vector<std::string> cmd;
  std::vector<std::string> env;  // "K=V"
  std::string workdir;           // absolute, or empty
  std::string user;              // "name", "uid", "name:group", "uid:gid"; empty: root
  u32 cpus = 1;                  // 1..255
  u64 memory_mib = 512;          // 16..1048576
  std::vector<PackedPort> ports;
  std::vector<std::string> volumes;  // absolute paths of the guest
  bool net = false;
  std::string stop_signal;  // "SIGTERM", "15"; empty: SIGTERM
  std::optional<PackedHealthcheck> healthcheck;
  std::map<std::string, std::string> labels;
  std::string image;           // the reference that it was made from; may be empty
  std::string image_digest;    // "sha256:..."; may be empty
  std::string kernel_cmdline;  // appended to the default one
  u64 storage_mib = 0;         // size of a new writable disk; 0: the default
  std::map<std::string, std::string>
      extra;  // members of "extra": what programs agree on among themselves

  // Sorted members, two spaces: the same configuration gives the same bytes.
  std::string to_json() const;
  // Unknown members, a member twice, wrong types, values out of range and unknown versions are
  // errors that name the member. At most kMaxText bytes.
  static Result<PackedConfig> parse(std::string_view text);
};

}  // namespace smol::image

// What one run of a machine amounted to: exits by kind and place, and when init was reached. A sum
// over its vCPUs, made on demand (Machine::stats).
#pragma once

#include <map>
#include <optional>
#include <string>

#include "vmm/vcpu_thread.h"

namespace smol::vmm {

struct Stats {
  std::string accel;
  u64 exits[std::variant_size_v<hypervisor::Exit>] = {};
  std::map<u16, u64> port_exits;  // by first port
  std::map<u64, u64> mmio_exits;  // by page address
  std::optional<u64> ns_to_init;
  std::optional<u64> instructions_to_init;  // software CPU only
  u64 exits_to_init = 0;                    // all kinds, at the time that init was reached
  u64 instructions = 0;
  hypervisor::Vcpu::CodeCache code_cache;
  u32 vcpus = 0;

  void add(const VcpuStats& vcpu);
  u64 all_exits() const {
    u64 sum = 0;
    for (const u64 count : exits) sum += count;
    return sum;
  }
  // {"accel", "vcpus", "ns_to_init", "guest_instructions_to_init", "exits_to_init",
  // "guest_instructions", "exits": {kind: n}, "port_exits", "mmio_exits"}; what is not known is
  // null.
  Result<> write_json(const std::string& path) const;
};

}  // namespace smol::vmm

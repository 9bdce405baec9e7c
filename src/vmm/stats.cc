#include "vmm/stats.h"

#include <fcntl.h>

#include <nlohmann/json.hpp>

#include "base/fd.h"

namespace smol::vmm {

void Stats::add(const VcpuStats& vcpu) {
  for (std::size_t kind = 0; kind < std::size(exits); ++kind) exits[kind] += vcpu.exits[kind];
  for (const auto& [port, count] : vcpu.ports) port_exits[port] += count;
  for (const auto& [page, count] : vcpu.mmio_pages) mmio_exits[page] += count;
  instructions += vcpu.instructions;
  code_cache.bytes += vcpu.code_cache.bytes;
  code_cache.trims += vcpu.code_cache.trims;
  ++vcpus;
}

Result<> Stats::write_json(const std::string& path) const {
  using nlohmann::json;
  json out;
  out["accel"] = accel;
  out["vcpus"] = vcpus;
  out["ns_to_init"] = ns_to_init ? json(*ns_to_init) : json(nullptr);
  out["guest_instructions_to_init"] =
      instructions_to_init ? json(*instructions_to_init) : json(nullptr);
  out["exits_to_init"] = ns_to_init ? json(exits_to_init) : json(nullptr);
  out["guest_instructions"] = instructions != 0 ? json(instructions) : json(nullptr);
  out["exits"] = json::object();
  for (std::size_t kind = 0; kind < std::size(exits); ++kind)
    if (exits[kind] != 0) out["exits"][std::string(hypervisor::exit_name(kind))] = exits[kind];
  out["port_exits"] = json::object();
  for (const auto& [port, count] : port_exits)
    out["port_exits"][fmt::format("{:#x}", port)] = count;
  out["mmio_exits"] = json::object();
  for (const auto& [page, count] : mmio_exits)
    out["mmio_exits"][fmt::format("{:#x}", page)] = count;
  const std::string text = out.dump(2) + "\n";
  TRY_ASSIGN(const base::UniqueFd fd, base::open_file(path, O_WRONLY | O_CREAT | O_TRUNC));
  return base::write_all(fd.get(), {reinterpret_cast<const u8*>(text.data()), text.size()}, path);
}

}  // namespace smol::vmm

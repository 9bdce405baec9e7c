#include "machines/publish.h"

#include <algorithm>

namespace smol::machines {
namespace {

bool is_free(const MachineSpec& spec, const Port& wanted) {
  const auto same = [&](const Port& other) {
    return &other != &wanted && other.host == wanted.host && other.udp == wanted.udp;
  };
  return std::ranges::none_of(spec.ports, same) && check_port(wanted).has_value();
}

// Two ports of one machine are not the same one.
constexpr int kTries = 100;

Result<> choose(const MachineSpec& spec, Port& port) {
  if (port.host != 0 && is_free(spec, port)) return {};
  for (int i = 0; i < kTries; ++i) {
    TRY_ASSIGN(port.host, free_port(port.address, port.udp));
    if (is_free(spec, port)) return {};
  }
  port.host = 0;
  return fail("-P: no port of the host is free for {}", port.guest);
}

}  // namespace

std::string host_side(const Port& port) {
  if (port.host == 0) return "chosen when the machine starts";
  const bool six = port.address.find(':') != std::string::npos;
  return fmt::format("{}{}{}:{}", six ? "[" : "", port.address, six ? "]" : "", port.host);
}

Result<> publish_exposed(MachineSpec& spec) {
  for (const std::string& text : spec.exposed) {
    auto port = parse_exposed(text);
    if (!port) return fail("-P: '{}', which is exposed, is no port of tcp or udp", text);
    port->automatic = true;
    const auto same = [&](const Port& other) {
      return other.guest == port->guest && other.udp == port->udp;
    };
    if (std::ranges::none_of(spec.ports, same)) spec.ports.push_back(std::move(*port));
  }
  return {};
}

Result<> choose_ports(MachineSpec& spec) {
  for (Port& port : spec.ports)
    if (port.automatic) TRY(choose(spec, port));
  return {};
}

}  // namespace smol::machines

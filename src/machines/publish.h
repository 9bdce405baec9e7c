// Ports of the host for all that a machine serves (`-P`): EXPOSE of its image, `expose` of its
// Smolfile.
//
// The host's side is chosen when the machine starts, and stays the same at its later starts as long
// as nobody else has it.
#pragma once

#include "machines/spec.h"

namespace smol::machines {

// Adds an automatic port for each entry of spec.exposed (another
// protocol than tcp and udp is an Error) whose guest port is not published already.
Result<> publish_exposed(MachineSpec& spec);
// The host's side of every automatic port that has none, or one that is taken.
Result<> choose_ports(MachineSpec& spec);
// "127.0.0.1:20123", "[::1]:8080", or that it is chosen at the start.
std::string host_side(const Port& port);

}  // namespace smol::machines

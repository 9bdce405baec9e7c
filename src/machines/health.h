// Whether the program in a running machine is well: its health command, asked once.
#pragma once

#include <string>

#include "machines/agent_client.h"

namespace smol::machines {

// "" when the command ended with status 0; else what is wrong, as a clause. timeout_ns: the
// guest's agent kills the command then. Blocking.
std::string ask_health(const std::string& socket, const RunConfig& command, u64 timeout_ns);

}  // namespace smol::machines

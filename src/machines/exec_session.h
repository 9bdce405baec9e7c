// One program in a running machine, on the caller's standard streams and terminal: `machine exec`,
// `machine shell`.
//
// Signals of this process go to the program, its window follows the terminal, its end is the
// outcome. When this process goes away the guest ends the program's process group. Single-threaded:
// everything happens in run().
#pragma once

#include "machines/agent_client.h"
#include "machines/run_session.h"

namespace smol::machines {

struct ExecOptions {
  RunConfig program;         // tty: needs a terminal on standard input
  bool interactive = false;  // copy standard input
  u64 timeout_ns = 0;        // 0: none; afterwards the program is killed and the outcome is 124
  std::string timeout_text;  // as the user wrote it
};

// Status as `machine run`: the program's, 128 + signal, 124, 126, 127; 1 with a message when it
// never ran or the machine went away.
Result<RunOutcome> run_exec_session(const AgentClient& agent, ExecOptions options);

}  // namespace smol::machines

#include "cli.h"
namespace smolvm {
#define LATER(verb) \
  Result<int> run_machine_##verb(const Invocation&) { return smol::fail("not supported yet"); }
LATER(start)
LATER(stop) LATER(shell) LATER(pause) LATER(resume) LATER(exec) LATER(cp) LATER(monitor)
    LATER(egress_events) LATER(logs)
}  // namespace smolvm

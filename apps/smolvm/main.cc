// smolvm: Linux microVMs from the command line.
#include <cstdio>

#include "base/time.h"
#include "cli.h"

int main(int argc, char** argv) {
  const smol::u64 started_at = smol::base::monotonic_ns();
  smolvm::Parsed parsed = smolvm::parse(argc, argv);
  std::fputs(parsed.out.c_str(), stdout);
  std::fputs(parsed.errors.c_str(), stderr);
  if (!parsed.invocation) return parsed.exit_status;
  parsed.invocation->started_at = started_at;
  const auto status = parsed.invocation->verb->run(*parsed.invocation);
  if (!status) {
    std::fprintf(stderr, "Error: %s\n", status.error().chain().c_str());
    return 1;
  }
  return *status;
}

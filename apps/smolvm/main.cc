// smolvm: Linux microVMs from the command line.
#include <time.h>

#include <cstdio>

#include "cli.h"

int main(int argc, char** argv) {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  smolvm::Parsed parsed = smolvm::parse(argc, argv);
  std::fputs(parsed.out.c_str(), stdout);
  std::fputs(parsed.errors.c_str(), stderr);
  if (!parsed.invocation) return parsed.exit_status;
  parsed.invocation->started_at =
      static_cast<smol::u64>(now.tv_sec) * 1'000'000'000 + static_cast<smol::u64>(now.tv_nsec);
  const auto status = parsed.invocation->verb->run(*parsed.invocation);
  if (!status) {
    std::fprintf(stderr, "Error: %s\n", status.error().chain().c_str());
    return 1;
  }
  return *status;
}

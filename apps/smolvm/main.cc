// smolvm: Linux microVMs from the command line.
#include <time.h>

#include <cstdio>

#include "cli.h"

namespace {

using namespace smolvm;

smol::Result<int> dispatch(const Request& request, smol::u64 started_at) {
  if (const auto* run = std::get_if<MachineRun>(&request)) return run_verb(*run, started_at);
  if (const auto* doctor = std::get_if<Doctor>(&request)) return run_verb(*doctor);
  if (const auto* kernel = std::get_if<KernelPath>(&request)) return run_verb(*kernel);
  std::printf("smolvm %s\n", SMOL_VERSION);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  const Parsed parsed = parse(argc, argv);
  if (!parsed.request) return parsed.exit_status;
  const auto status = dispatch(*parsed.request, static_cast<smol::u64>(now.tv_sec) * 1'000'000'000 +
                                                    static_cast<smol::u64>(now.tv_nsec));
  if (!status) {
    std::fprintf(stderr, "Error: %s\n", status.error().chain().c_str());
    return 1;
  }
  return *status;
}

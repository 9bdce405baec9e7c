// smolvm: Linux microVMs from the command line.
#include <cstdio>

#include "base/printable.h"
#include "base/time.h"
#include "cli.h"

namespace {

int finish(const smol::Result<int>& status) {
  if (status) return *status;
  smol::base::print_error(status.error());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  const smol::u64 started_at = smol::base::monotonic_ns();
  // Its words belong to the packed program, options and all.
  if (argc > 3 && std::string_view(argv[1]) == "pack" && std::string_view(argv[2]) == "launch")
    return finish(smolvm::run_pack_launch(argc - 3, argv + 3));
  smolvm::Parsed parsed = smolvm::parse(argc, argv);
  std::fputs(parsed.out.c_str(), stdout);
  std::fputs(parsed.errors.c_str(), stderr);
  if (!parsed.invocation) return parsed.exit_status;
  parsed.invocation->started_at = started_at;
  return finish(parsed.invocation->verb->run(*parsed.invocation));
}

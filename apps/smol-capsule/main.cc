// A capsule: one program in its own virtual machine, as one file. Behind this program lies the
// container with configuration, kernel, init and root (docs/capsules.md).
#include <cstdio>

#include "base/printable.h"
#include "commands.h"

namespace {

using namespace smol;

// Words that smolvm puts in front when it runs this program for another file; gives how many.
int take_given(int argc, char** argv, capsule::Contents::Given& given) {
  int taken = 0;
  for (; taken + 1 < argc; ++taken) {
    const char* const word = argv[taken + 1];
    if (std::sscanf(word, "--from-fd=%d", &given.container) != 1 &&
        std::sscanf(word, "--kernel-fd=%d", &given.kernel) != 1 &&
        std::sscanf(word, "--init-fd=%d", &given.init) != 1)
      break;
  }
  return taken;
}

Result<int> dispatch(const capsule::Arguments& arguments, const capsule::Contents& contents,
                     const char* program) {
  switch (arguments.verb) {
    case capsule::Verb::kHelp:
      std::fputs(capsule::help_text(program).c_str(), stdout);
      return 0;
    case capsule::Verb::kInfo:
      return capsule::show_info(arguments, contents);
    case capsule::Verb::kStart:
      return capsule::start(arguments, contents);
    case capsule::Verb::kExec:
    case capsule::Verb::kShell:
      return capsule::execute(arguments, contents);
    case capsule::Verb::kStop:
      return capsule::stop(arguments, contents);
    case capsule::Verb::kStatus:
      return capsule::status(arguments, contents);
    case capsule::Verb::kRun:
      return capsule::run_foreground(arguments, contents);
  }
  return 1;
}

int refuse(const Error& error, int status) {
  base::print_error(error);
  return status;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 1) return 2;
  auto contents = capsule::Contents::open_self();
  int taken = 0;
  // A file with a container of its own never runs another one.
  if (!contents) {
    capsule::Contents::Given given{.name = argv[0]};
    taken = take_given(argc, argv, given);
    if (given.container >= 0) contents = capsule::Contents::open_given(given);
  }
  if (!contents) return refuse(contents.error(), 1);
  const auto arguments = capsule::parse_arguments(argc - taken, argv + taken);
  if (!arguments) return refuse(arguments.error(), 2);
  const auto status = dispatch(*arguments, *contents, argv[0]);
  return status ? *status : refuse(status.error(), 1);
}

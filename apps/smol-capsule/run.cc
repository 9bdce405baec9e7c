// `./app`: the entry point in the foreground, as if it ran here.
#include <unistd.h>

#include <cstdio>

#include "base/printable.h"
#include "commands.h"
#include "machine.h"
#include "machines/run_session.h"
#include "monitor.h"

namespace capsule {
namespace {

// A job in the background must not read its terminal, or set it: it would be stopped.
bool in_foreground() { return ::tcgetpgrp(STDIN_FILENO) == ::getpgrp(); }

Result<> choose_streams(const Arguments& arguments, machines::RunOptions& options) {
  const bool terminal = ::isatty(STDIN_FILENO) != 0;
  if (arguments.tty && !terminal) return fail("-t needs a terminal on standard input");
  options.interactive = !terminal || in_foreground();
  options.config.tty = arguments.tty || (!arguments.no_tty && terminal && in_foreground() &&
                                         ::isatty(STDOUT_FILENO) != 0);
  return {};
}

}  // namespace

Result<int> run_foreground(const Arguments& arguments, const Contents& contents) {
  TRY_ASSIGN(Plan plan, plan_machine(arguments, contents.config(), contents.has_root()));
  machines::RunOptions options;
  options.config = std::move(plan.program);
  options.setup = std::move(plan.setup);
  TRY(choose_streams(arguments, options));
  options.show_console = arguments.verbose;
  options.timeout_ns = arguments.timeout_ns;
  options.timeout_text = arguments.timeout_text;
  options.monitor = [&](const std::string& socket) {
    return run_packed(contents, plan.machine, socket);
  };
  options.started = drop_text;
  if (arguments.publish_all)
    for (const machines::Port& port : plan.ports)
      std::fprintf(stderr, "Published: %s\n", machines::to_text(port).c_str());
  TRY_ASSIGN(const machines::RunOutcome outcome, machines::RunSession::run(std::move(options)));
  if (!outcome.message.empty()) base::print_error(outcome.message);
  return outcome.status;
}

}  // namespace capsule

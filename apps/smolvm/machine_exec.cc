// Verbs that talk to the agent in a running machine: exec, shell, cp.
#include <signal.h>
#include <unistd.h>

#include "base/printable.h"
#include "machines/agent_client.h"
#include "machines/exec_session.h"
#include "machines/launch.h"
#include "options.h"
#include "progress.h"

namespace smolvm {
namespace {

using namespace smol;
using machines::AgentClient;
using machines::Machines;
using machines::Record;

Result<Record> find_running(const Invocation& invocation) {
  TRY_ASSIGN(const std::string name, invocation.machine());
  TRY_ASSIGN(auto all, Machines::open());
  return all.running(name);
}

// The machine's own settings, then what this command line says.
Result<machines::RunConfig> program_of(const Invocation& invocation, const Record& record) {
  machines::RunConfig program;
  program.arguments = invocation.command;
  program.directory = invocation.text("workdir", record.spec.directory);
  program.user = invocation.text("user", record.spec.user);
  TRY_ASSIGN(program.environment, machines::parse_environment(invocation.list("env")));
  for (const std::string& text : invocation.list("secret-env")) {
    TRY_ASSIGN(const auto pair, machines::parse_pair("--secret-env", text));
    const char* const value = std::getenv(pair.second.c_str());
    if (value == nullptr) return fail("--secret-env {}: {} is not set here", text, pair.second);
    program.environment.push_back(pair.first + "=" + value);
  }
  return program;
}

Result<> add_secret_files(const Invocation& invocation, const AgentClient& agent,
                          const std::string& user) {
  for (const std::string& text : invocation.list("secret-file")) {
    TRY_ASSIGN(const auto pair, machines::parse_pair("--secret-file", text));
    TRY_ASSIGN(const auto bytes, base::read_file(pair.second));
    TRY(agent.add_secret(
        {.name = pair.first, .owner = user, .value = std::string(bytes.begin(), bytes.end())}));
  }
  return {};
}

int tell(const machines::RunOutcome& outcome) {
  if (!outcome.message.empty()) base::print_error(outcome.message);
  return outcome.status;
}

}  // namespace

Result<int> run_machine_exec(const Invocation& invocation) {
  TRY_ASSIGN(const Record record, find_running(invocation));
  if (invocation.command.empty()) return fail("machine exec: no command is given");
  const AgentClient agent(machines::vsock_socket(record));
  machines::ExecOptions options;
  TRY_ASSIGN(options.program, program_of(invocation, record));
  TRY(add_secret_files(invocation, agent, options.program.user));
  if (invocation.has("timeout")) {
    options.timeout_text = invocation.text("timeout");
    TRY_ASSIGN(options.timeout_ns, machines::parse_duration("--timeout", options.timeout_text));
  }
  if (invocation.has("detach")) {
    if (invocation.has("interactive") || invocation.has("tty") || invocation.has("timeout"))
      return fail("-d and -i, -t or --timeout contradict each other");
    options.program.detached = true;
    TRY_ASSIGN(const u32 pid, agent.exec_detached(options.program));
    fmt::print("{}\n", pid);
    return 0;
  }
  options.program.tty = invocation.has("tty");
  if (options.program.tty && ::isatty(STDIN_FILENO) == 0)
    return fail("-t needs a terminal on standard input");
  options.interactive = invocation.has("interactive");
  TRY_ASSIGN(const auto outcome, machines::run_exec_session(agent, std::move(options)));
  return tell(outcome);
}

Result<int> run_machine_shell(const Invocation& invocation) {
  TRY_ASSIGN(const Record record, find_running(invocation));
  machines::ExecOptions options;
  TRY_ASSIGN(options.program, program_of(invocation, record));
  // The user's own shell where the image has one; every image that is worth a shell has sh.
  options.program.arguments = {"sh", "-c", "exec \"${SHELL:-sh}\" -l"};
  options.program.tty = ::isatty(STDIN_FILENO) != 0;
  options.interactive = true;
  TRY_ASSIGN(
      const auto outcome,
      machines::run_exec_session(AgentClient(machines::vsock_socket(record)), std::move(options)));
  return tell(outcome);
}

namespace {

struct Place {
  std::string machine, path;  // machine "": of this host
};

Place place_of(const std::string& text) {
  const std::size_t colon = text.find(':');
  // As scp has it: a slash before the colon makes it a path of this host.
  if (colon == std::string::npos || colon == 0 || text.find('/') < colon) return {"", text};
  return {text.substr(0, colon), text.substr(colon + 1)};
}

Result<machines::CopyIn> copy_in_request(const Invocation& invocation, const std::string& path) {
  machines::CopyIn request;
  request.path = path;
  if (invocation.has("mode")) {
    const std::string text = invocation.text("mode");
    char* end = nullptr;
    const unsigned long mode = std::strtoul(text.c_str(), &end, 8);
    if (text.empty() || *end != '\0' || text[0] == '-' || mode > 07777)
      return fail("--mode {}: wanted octal permissions, as 0644", text);
    request.mode = true;
    request.mode_bits = static_cast<u32>(mode);
  }
  if (invocation.number("uid", 0) > 0xffff'fffe || invocation.number("gid", 0) > 0xffff'fffe)
    return fail("--uid and --gid are at most {}", 0xffff'fffeu);
  request.owner = invocation.has("uid") || invocation.has("gid");
  request.uid = static_cast<u32>(invocation.number("uid", 0));
  request.gid = static_cast<u32>(invocation.number("gid", 0));
  return request;
}

std::string guest_path(const Record& record, const std::string& path) {
  if (path.starts_with('/')) return path;
  const std::string base = record.spec.directory.empty() ? "/root" : record.spec.directory;
  return path.empty() ? base : base + "/" + path;
}

Result<int> report(const Result<machines::CopyResult>& copied) {
  if (!copied) return std::unexpected(copied.error());
  for (const std::string& message : copied->messages) base::print_error(message);
  if (copied->problems > copied->messages.size())
    fmt::print(stderr, "Error: {} more files could not be copied\n",
               copied->problems - copied->messages.size());
  return copied->problems == 0 ? 0 : 1;
}

}  // namespace

Result<int> run_machine_cp(const Invocation& invocation) {
  const Place from = place_of(invocation.words[0]), to = place_of(invocation.words[1]);
  if (from.machine.empty() == to.machine.empty())
    return fail("machine cp: exactly one side must be MACHINE:PATH");
  TRY_ASSIGN(auto all, Machines::open());
  TRY_ASSIGN(const Record record, all.running(from.machine.empty() ? to.machine : from.machine));
  const AgentClient agent(machines::vsock_socket(record));
  Progress progress(fmt::format("Copying {} to {}", invocation.words[0], invocation.words[1]));
  const auto shown = [&](u64 bytes) { progress.detail(fmt::format("{} MiB", bytes / kMiB)); };
  if (to.machine.empty()) {
    if (invocation.has("mode") || invocation.has("uid") || invocation.has("gid"))
      return fail("--mode, --uid and --gid are for copies into a machine");
    return report(agent.copy_tree_out({.path = guest_path(record, from.path)}, to.path, shown));
  }
  TRY_ASSIGN(const auto request, copy_in_request(invocation, guest_path(record, to.path)));
  return report(agent.copy_tree_in(from.path, request, shown));
}

}  // namespace smolvm

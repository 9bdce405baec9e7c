// Start, stop, pause and resume: the transitions that have a monitor's process on their other side.
//
// A start claims the record first (so the second of two sees who is at it), notes the monitor's
// identity before that may run, and gives the record its old state back when anything fails. So a
// kill at any moment leaves a record whose next reader can tell what is left of the attempt and end
// it.
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "base/printable.h"
#include "base/time.h"
#include "client/monitor_client.h"
#include "guest/protocol/protocol.h"
#include "machines/agent_client.h"
#include "machines/data_dir.h"
#include "machines/detached_monitor.h"
#include "machines/exposed_sockets.h"
#include "machines/launch.h"
#include "machines/machines.h"
#include "machines/monitor_process.h"
#include "machines/publish.h"

namespace smol::machines {
namespace {

constexpr u64 kSecond = 1'000'000'000;
constexpr u64 kBootTime =
    120 * kSecond;  // the software CPU on a busy host is slow; a hang is what this is for
constexpr int kAfterGraceMs = 5'000;
constexpr int kEndTries = 1000, kEndPauseUs = 5'000;  // a watcher may be slow on a busy host
constexpr std::size_t kLogRead = 64 * 1024;

std::string tail_of(const std::string& path) {
  auto text = base::read_text_file(path);
  if (!text) return "";
  return text->size() > kLogRead ? text->substr(text->size() - kLogRead) : *text;
}

// The reason that the guest's kernel or the monitor gave on its way out.
std::string last_words(const std::string& folder) {
  const std::string console = tail_of(console_log(folder)), log = tail_of(monitor_log(folder));
  if (const std::size_t at = console.find("Kernel panic - not syncing"); at != std::string::npos)
    return "the guest's kernel panicked: " +
           base::printable(console.substr(at, console.find_first_of("\r\n", at) - at));
  constexpr std::string_view kPrefix = "Error: ";
  if (const std::size_t at = log.rfind(kPrefix); at != std::string::npos)
    return log.substr(at + kPrefix.size(), log.find('\n', at) - at - kPrefix.size());
  return "";
}

// The monitor connects to `vsock.sock_PORT` for a guest that asks for PORT: a link there is all
// that a forwarded socket needs.
Result<> make_links(const Record& record, const LaunchPlan& plan) {
  for (const HostSocket& socket : plan.host_sockets) {
    const std::string link = fmt::format("{}_{}", vsock_socket(record), socket.port);
    ::unlink(link.c_str());
    if (::symlink(socket.path.c_str(), link.c_str()) != 0)
      return fail_errno("cannot link {} to {}", link, socket.path);
  }
  return {};
}

void remove_sockets(const Record& record) {
  if (record.sockets.empty()) return;
  for (const char* const name : {"api.sock", "vsock.sock", "vsock.sock_1024"})
    ::unlink((record.sockets + "/" + name).c_str());
}

std::string describe_main(u32 kind, i32 value) {
  if (kind == SMOL_EXIT_OUT_OF_MEMORY) return "its main program was killed: out of memory";
  if (kind == SMOL_EXIT_SIGNAL)
    return fmt::format("its main program was killed by signal {}", value);
  if (value == 0) return kGuestEnded;
  return fmt::format("its main program ended with status {}", value);
}

Result<> refuse_running(const Record& record) {
  const std::string& name = record.spec.name;
  switch (record.state) {
    case State::kRunning:
    case State::kPaused:
      return fail("machine '{}' is already {} (PID: {})", name, name_of(record.state),
                  record.monitor.pid);
    case State::kCreated:
    case State::kStopped:
      return {};
    default:
      return std::unexpected(busy_error(record));
  }
}

}  // namespace

std::string describe_end(const std::string& folder) {
  // The watcher learns of the end when everyone else does; it has a moment to write it down.
  auto end = read_end(end_path(folder));
  for (int i = 0; i < kEndTries && !end; ++i) {
    ::usleep(kEndPauseUs);
    end = read_end(end_path(folder));
  }
  if (!end) return "monitor ended without a word";
  if (end->by_signal)
    return fmt::format("monitor was killed by signal {}{}", end->value,
                       end->value == SIGSYS ? " (its system call filter)" : "");
  const std::string words = last_words(folder);
  if (!words.empty()) return words;
  // 3: the guest reset itself, which is how a kernel without ACPI ends a machine.
  if (end->value != 0 && end->value != 3)
    return fmt::format("monitor ended with status {}", end->value);
  return end->main ? describe_main(*end->main, end->main_value) : kGuestEnded;
}

Result<> Machines::boot(Record& record, const StartOptions& options) {
  const std::string& name = record.spec.name;
  const std::string folder = machine_folder(name);
  TRY(choose_ports(record.spec));
  TRY(check_host(record.spec));
  TRY(make_folders(folder));
  if (!record.spec.network.segment.empty()) {
    TRY_ASSIGN(record.address, store_.take_address(name));
  }
  TRY_ASSIGN(record.sockets, socket_dir(data_, name));
  remove_sockets(record);
  TRY_ASSIGN(LaunchPlan plan, plan_launch(record, folder, options));
  TRY(make_links(record, plan));
  TRY_ASSIGN(const base::UniqueFd listener, listen_for_guest(vsock_socket(record) + "_1024"));
  TRY_ASSIGN(const std::string program, find_monitor());
  auto cgroup = make_cgroup(record.spec, plan.arguments);
  TRY_ASSIGN(auto monitor,
             DetachedMonitor::start({.program = program,
                                     .arguments = plan.arguments,
                                     .inherited = {plan.boot.initrd.get()},
                                     .output = console_log(folder),
                                     .errors = monitor_log(folder),
                                     .end = end_path(folder),
                                     .listener = listener.get(),
                                     .pid_namespace = allows_pid_namespace(plan.arguments),
                                     .cgroup_fd = cgroup ? cgroup->fd() : -1,
                                     .cgroup = cgroup ? cgroup->path() : ""}));
  if (cgroup) cgroup->keep();  // the watcher removes it
  record.monitor = monitor.identity();
  TRY(store_.change(name, [&](Record& fresh) -> Result<> {
    fresh.monitor = record.monitor;
    fresh.spec.ports = record.spec.ports;
    fresh.sockets = record.sockets;
    return {};
  }));
  TRY(monitor.release());
  if (const auto booted = boot_agent(listener.get(), monitor.pidfd(), plan.setup, kBootTime);
      !booted) {
    const bool ended = wait_for_end(base::UniqueFd(::dup(monitor.pidfd())), 100);
    monitor.kill();
    const std::string words = last_words(folder);
    if (ended && !words.empty()) return fail("{}", words);
    return words.empty() ? std::unexpected(booted.error()) : wrap(booted.error(), "{}", words);
  }
  std::vector<ExposedSocket> exposed;
  for (const auto& [host, guest] : record.spec.expose_socket)
    exposed.push_back({.host = host, .guest = guest});
  const auto listening = expose_sockets(exposed, vsock_socket(record), monitor.pidfd());
  if (!listening) monitor.kill();
  monitor.hand_over();
  return listening;
}

Result<Record> Machines::start(const std::string& name, const StartOptions& options) {
  State before = State::kStopped;
  std::string reason;
  TRY_ASSIGN(Record record, claim(name, State::kStarting, [&](const Record& found) -> Result<> {
               before = found.state;
               reason = found.reason;
               return refuse_running(found);
             }));
  if (const auto booted = boot(record, options); !booted) {
    remove_sockets(record);
    TRY(store_.change(name, [&](Record& fresh) -> Result<> {
      fresh.state = before;
      fresh.reason = reason;
      fresh.monitor = fresh.worker = {};
      return {};
    }));
    return wrap(booted.error(), "cannot start machine '{}'", name);
  }
  return store_.change(name, [&](Record& fresh) -> Result<> {
    fresh.state = State::kRunning;
    fresh.worker = {};
    fresh.reason.clear();
    fresh.started_ms = unix_time_ms();
    fresh.ended_ms = 0;
    return {};
  });
}

Result<> Machines::stop(const std::string& name, const StopOptions& options) {
  TRY_ASSIGN(Record record, claim(name, State::kStopping, [&](const Record& found) -> Result<> {
               if (found.state == State::kRunning || found.state == State::kPaused) return {};
               if (found.state == State::kCreated || found.state == State::kStopped)
                 return fail("machine '{}' is not running", name);
               return std::unexpected(busy_error(found));
             }));
  if (const auto process = open_process(record.monitor)) {
    const int grace_ms = static_cast<int>(std::min<u64>(options.grace_ns / 1'000'000, 3'600'000));
    bool ended = false;
    if (!options.force) {
      if (auto client = client::MonitorClient::connect(api_socket(record), 2000))
        (void)client->resume();  // a paused guest cannot end
      if (AgentClient(vsock_socket(record), 5 * kSecond).shutdown(options.grace_ns))
        ended = wait_for_end(*process, grace_ms + kAfterGraceMs);
    }
    if (!ended) {
      signal_process(*process, SIGTERM);  // the monitor's own orderly end
      ended = wait_for_end(*process, kAfterGraceMs);
    }
    if (!ended) {
      signal_process(*process, SIGKILL);
      ended = wait_for_end(*process, kAfterGraceMs);
    }
    if (!ended)
      return fail("machine '{}': its monitor (PID {}) does not end", name, record.monitor.pid);
  }
  remove_sockets(record);
  TRY(store_.change(name, [](Record& fresh) -> Result<> {
    fresh.state = State::kStopped;
    fresh.monitor = fresh.worker = {};
    fresh.reason.clear();
    fresh.ended_ms = unix_time_ms();
    return {};
  }));
  return {};
}

Result<Record> Machines::running(const std::string& name) {
  TRY_ASSIGN(Record record, get(name));
  if (record.state == State::kPaused)
    return fail("machine '{}' is paused; 'machine resume {}' lets it go on", name, name);
  if (record.state != State::kRunning)
    return fail("machine '{}' is not running (it is {})", name, name_of(record.state));
  return record;
}

Result<> Machines::pause(const std::string& name) {
  TRY_ASSIGN(const Record record, running(name));
  auto client = client::MonitorClient::connect(api_socket(record));
  if (!client) return wrap(client.error().error(), "cannot reach machine '{}'", name);
  if (const auto done = client->pause(); !done)
    return wrap(done.error().error(), "cannot pause machine '{}'", name);
  TRY(store_.change(name, [](Record& fresh) -> Result<> {
    if (fresh.state == State::kRunning) fresh.state = State::kPaused;
    return {};
  }));
  return {};
}

Result<> Machines::resume(const std::string& name) {
  TRY_ASSIGN(const Record record, get(name));
  if (record.state != State::kPaused)
    return fail("machine '{}' is not paused (it is {})", name, name_of(record.state));
  auto client = client::MonitorClient::connect(api_socket(record));
  if (!client) return wrap(client.error().error(), "cannot reach machine '{}'", name);
  if (const auto done = client->resume(); !done)
    return wrap(done.error().error(), "cannot resume machine '{}'", name);
  TRY(store_.change(name, [](Record& fresh) -> Result<> {
    if (fresh.state == State::kPaused) fresh.state = State::kRunning;
    return {};
  }));
  // The guest's clock stood still meanwhile.
  return AgentClient(vsock_socket(record)).set_time(base::realtime_ns());
}

}  // namespace smol::machines

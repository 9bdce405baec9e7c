// One run of one program in one fresh machine, from the monitor's start to the program's exit
// status.
//
// The CLI's side of the run protocol: it listens on an abstract Unix socket (nothing on disk,
// nothing to clean up after a kill -9), starts the monitor, hands the guest its command, copies the
// standard streams, passes signals and window sizes on, and tells apart how the machine ended.
// Single-threaded: everything happens in run().
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "machines/guest_setup.h"
#include "machines/monitor_process.h"
#include "machines/program_session.h"
#include "machines/socket_relay.h"
#include "sandbox/cgroup.h"

namespace smol::machines {

struct RunOptions {
  RunConfig config;
  GuestSetup setup;                      // what the guest is given before the program starts
  std::vector<HostSocket> host_sockets;  // where the ports of setup.forwards lead
  std::vector<std::string>
      monitor_arguments;                    // without --vsock and --serial, which the session adds
  std::vector<int> inherited;               // descriptors named in monitor_arguments
  std::optional<sandbox::Cgroup> cgroup{};  // that the monitor is born into; gone after the run
  // Instead of smol-vmm: the monitor as a function in the forked child, with a socket device at
  // `vsock_socket` ("@name") and the serial line on its standard output. Gives the exit status.
  std::function<int(const std::string& vsock_socket)> monitor;
  std::function<void()> started;  // called when the guest's program runs
  bool interactive = false;       // copy standard input
  u64 timeout_ns = 0;             // 0: none
  std::string timeout_text;       // as the user wrote it
  bool show_console = false;      // kernel messages to standard error
};

class RunSession final : public ProgramSession::Owner {
 public:
  static Result<RunOutcome> run(RunOptions options);

 private:
  explicit RunSession(RunOptions options) : options_(std::move(options)) {}

  void program_ended(RunOutcome outcome) override;
  void connection_broken(std::string message) override;
  void given_up(RunOutcome outcome) override;
  void connection_gone() override {}  // the monitor's end says how, unless EXIT already did
  void output_drained() override;
  void program_started() override {
    if (options_.started) options_.started();
  }

  Result<> listen();
  Result<> start_monitor();
  Result<> watch_all();
  void accept_guest();
  void read_console();
  void read_errors();
  void monitor_ended();
  std::string panic_line() const;
  RunOutcome outcome_of_monitor(int wait_status);

  RunOptions options_;
  std::unique_ptr<base::EventLoop> loop_;
  std::unique_ptr<base::Timer> timeout_, grace_, settled_;
  std::unique_ptr<ProgramSession> program_;
  std::unique_ptr<SocketRelay> relay_;
  std::string socket_name_;  // without '@'
  base::UniqueFd listener_;
  std::optional<MonitorProcess> monitor_;
  std::string console_tail_, error_text_;
  std::optional<RunOutcome> outcome_;  // what the guest or we decided
  bool guest_came_ = false, monitor_gone_ = false;
};

}  // namespace smol::machines

// One run of one program in one fresh machine, from the monitor's start to the program's exit status.
//
// The CLI's side of the run protocol: it listens on an abstract Unix socket (nothing on disk, nothing to clean up
// after a kill -9), starts the monitor, hands the guest its command, copies the standard streams, passes signals and window
// sizes on, and tells apart how the machine ended.
// Single-threaded: everything happens in run().
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "machines/frames.h"
#include "machines/monitor_process.h"
#include "base/terminal.h"

namespace smol::machines {

struct RunOptions {
  RunConfig config;
  std::vector<std::string> monitor_arguments;  // without --vsock and --serial, which the session adds
  std::vector<int> inherited;                  // descriptors named in monitor_arguments
  bool interactive = false;                    // copy standard input
  u64 timeout_ns = 0;                          // 0: none
  std::string timeout_text;                    // as the user wrote it
  bool show_console = false;                   // kernel messages to standard error
};

struct RunOutcome {
  int status = 0;        // for exit(3)
  std::string message;   // for standard error, without "Error: "; empty when the program simply ended
};

class RunSession {
 public:
  static Result<RunOutcome> run(RunOptions options);

 private:
  struct Output {  // a standard stream with what it has not taken yet
    int fd = -1;
    std::vector<u8> held{};
    bool watched = false, broken = false;
  };
  explicit RunSession(RunOptions options) : options_(std::move(options)) {}

  Result<> listen();
  Result<> start_monitor();
  Result<> watch_all();
  Result<> watch_signals();
  void accept_guest();
  void read_frames();
  Result<> handle(const Frame& frame);
  Result<> send_config();
  void send(u16 type, ConstByteSpan payload);
  void flush_control();
  void read_input();
  void update_input_watch();
  void write_output(Output& output, ConstByteSpan bytes);
  void flush_output(Output& output);
  void read_console();
  void read_errors();
  void handle_signals();
  void monitor_ended();
  void lose_guest(std::string message);
  void finish(RunOutcome outcome);
  std::string panic_line() const;
  RunOutcome outcome_of_monitor(int wait_status);

  RunOptions options_;
  std::unique_ptr<base::EventLoop> loop_;
  std::unique_ptr<base::Timer> timeout_, grace_;
  std::unique_ptr<base::RawTerminal> terminal_;
  std::string socket_name_;  // without '@'
  base::UniqueFd listener_, control_, signals_;
  std::optional<MonitorProcess> monitor_;
  FrameReader reader_;
  std::vector<u8> to_guest_;
  bool hello_ = false, input_watched_ = false, input_ended_ = false, started_ = false;
  u64 input_window_ = 0;
  Output out_{.fd = 1}, err_{.fd = 2};
  std::string console_tail_, error_text_;
  std::optional<RunOutcome> outcome_;   // what the guest or we decided
  bool monitor_gone_ = false;
};

}  // namespace smol::machines

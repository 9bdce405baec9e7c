// A program in a guest on this process's standard streams: what `run` and `exec` share.
//
// Over one connection it sends the program, copies the streams within their windows, passes signals
// and window sizes on, and tells its owner how the program ended. It knows neither monitors nor
// sockets' names. Single-threaded, on the owner's loop.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "base/terminal.h"
#include "machines/frames.h"

namespace smol::machines {

struct RunOutcome {
  int status = 0;  // for exit(3)
  std::string
      message;  // for standard error, without "Error: "; empty when the program simply ended
};

class ProgramSession {
 public:
  // Calls into the owner; all on the loop. None may destroy the session.
  class Owner {
   public:
    virtual ~Owner() = default;
    virtual void program_ended(RunOutcome outcome) = 0;
    // The guest broke the protocol, or this host failed: the program's fate is unknown.
    virtual void connection_broken(std::string message) = 0;
    // The user ended it from this side (a signal before the start, a reader that went away): the
    // outcome stands.
    virtual void given_up(RunOutcome outcome) = 0;
    virtual void connection_gone() = 0;
    virtual void output_drained() = 0;
    virtual void program_started() {}
  };

  struct Options {
    RunConfig config;
    std::vector<u8> setup;     // frames before the program's
    u16 frame_type = 0;        // SMOL_FRAME_CONFIG or SMOL_FRAME_EXEC
    bool interactive = false;  // copy standard input
    std::string memory_hint;   // behind the message of an out-of-memory end
  };

  ProgramSession(base::EventLoop& loop, Owner& owner, Options options)
      : loop_(loop), owner_(owner), options_(std::move(options)) {}
  ~ProgramSession();
  ProgramSession(const ProgramSession&) = delete;
  ProgramSession& operator=(const ProgramSession&) = delete;

  // Takes over this process's signals and, with a terminal, its mode. Once, before attach.
  Result<> watch_user();
  // speak_first: do not wait for the guest's hello.
  Result<> attach(base::UniqueFd connection, bool speak_first);
  void restore_terminal() { terminal_.reset(); }

  bool attached() const { return control_.valid(); }
  bool greeted() const { return hello_; }
  bool drained() const { return out_.held.empty() && err_.held.empty(); }
  void write_error_text(std::string_view text);
  // Reads what is still on the connection, as far as the readers take it.
  void read_rest();
  void detach();

 private:
  struct Output {  // a standard stream with what it has not taken yet
    int fd = -1;
    std::vector<u8> held{};
    bool watched = false, broken = false;
  };

  Result<> handle(const Frame& frame);
  Result<> handle_exit(ConstByteSpan payload);
  Result<> send_program();
  void read_frames();
  void send(u16 type, ConstByteSpan payload);
  void flush_control();
  void update_control_watch();
  Result<> watch_control(u32 events);
  bool readers_are_behind() const;
  void read_input();
  void update_input_watch();
  void write_output(Output& output, ConstByteSpan bytes);
  void flush_output(Output& output);
  void output_failed(Output& output, int error_number);
  void handle_signals();

  base::EventLoop& loop_;
  Owner& owner_;
  Options options_;
  std::unique_ptr<base::RawTerminal> terminal_;
  base::UniqueFd control_, signals_;
  FrameReader reader_;
  std::vector<u8> to_guest_;
  bool hello_ = false, sent_ = false, input_watched_ = false, input_ended_ = false,
       started_ = false;
  u64 input_window_ = 0;
  u32 control_events_ = 0;  // as registered
  Output out_{.fd = 1}, err_{.fd = 2};
};

}  // namespace smol::machines

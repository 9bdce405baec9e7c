#include "machines/exec_session.h"

#include <optional>

#include "guest/protocol/protocol.h"
#include "machines/program_session.h"

namespace smol::machines {
namespace {

constexpr u64 kGuestGrace = 5'000'000'000;  // beyond the timeout that the guest keeps itself

class ExecSession final : public ProgramSession::Owner {
 public:
  Result<RunOutcome> run(const AgentClient& agent, ExecOptions options) {
    TRY_ASSIGN(loop_, base::EventLoop::create());
    timeout_text_ = options.timeout_text;
    if (options.timeout_ns != 0)
      options.program.timeout_ms =
          static_cast<u32>(std::clamp<u64>(options.timeout_ns / 1'000'000, 1, ~u32{0}));
    ProgramSession::Options program{.config = std::move(options.program),
                                    .setup = {},
                                    .frame_type = SMOL_FRAME_EXEC,
                                    .interactive = options.interactive,
                                    .memory_hint = ""};
    program_ = std::make_unique<ProgramSession>(*loop_, *this, std::move(program));
    TRY_ASSIGN(auto connection, agent.open());
    TRY(program_->watch_user());
    TRY(program_->attach(std::move(connection), true));
    if (options.timeout_ns != 0) {
      TRY_ASSIGN(timeout_,
                 base::Timer::create(*loop_, [this] { given_up({124, timeout_message()}); }));
      timeout_->arm(options.timeout_ns + kGuestGrace);
    }
    if (!over_) TRY(loop_->run());
    program_->restore_terminal();
    return *outcome_;
  }

  void program_ended(RunOutcome outcome) override {
    if (outcome.status == 124 && !outcome.message.empty()) outcome.message = timeout_message();
    finish(std::move(outcome));
  }
  void connection_broken(std::string message) override { finish({1, std::move(message)}); }
  void given_up(RunOutcome outcome) override {
    outcome_ = std::move(outcome);
    stop();
  }
  void connection_gone() override { finish({1, "the machine went away while the program ran"}); }
  void output_drained() override {
    if (outcome_) stop();
  }

 private:
  std::string timeout_message() const { return fmt::format("timed out after {}", timeout_text_); }
  // The first word counts; what has been said until then is still written.
  void finish(RunOutcome outcome) {
    if (!outcome_) outcome_ = std::move(outcome);
    if (program_->drained()) stop();
  }
  void stop() {
    over_ = true;
    loop_->stop();
  }

  std::unique_ptr<base::EventLoop> loop_;
  std::unique_ptr<base::Timer> timeout_;
  std::unique_ptr<ProgramSession> program_;
  std::optional<RunOutcome> outcome_;
  std::string timeout_text_;
  bool over_ = false;
};

}  // namespace

Result<RunOutcome> run_exec_session(const AgentClient& agent, ExecOptions options) {
  ExecSession session;
  return session.run(agent, std::move(options));
}

}  // namespace smol::machines

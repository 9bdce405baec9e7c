#include "build/run_step.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "build/layer_tar.h"
#include "image/tree/layer.h"
#include "machines/agent_client.h"
#include "machines/exec_session.h"
#include "machines/launch.h"

namespace smol::build {
namespace {

constexpr const char* kLabel = "smolvm.build";
constexpr const char* kUpper = "/run/smol/build";  // where the overlay's disk is seen once more
constexpr u64 kPatience = 600'000'000'000;

// Machines of builds whose process is gone, and of one that had this process' number.
void remove_leftovers(machines::Machines& all) {
  const auto records = all.list();
  if (!records) return;
  for (const auto& record : *records)
    for (const auto& [key, value] : record.spec.labels)
      if (key == kLabel && (std::atoi(value.c_str()) == ::getpid() ||
                            (::kill(std::atoi(value.c_str()), 0) != 0 && errno == ESRCH)))
        (void)all.remove(record.spec.name, true);
}

// While it lives, what is written to standard output goes to standard error.
class OutputToErrors {
 public:
  OutputToErrors() : kept_(::fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3)) {
    std::fflush(stdout);
    if (kept_.valid()) ::dup2(STDERR_FILENO, STDOUT_FILENO);
  }
  ~OutputToErrors() {
    if (kept_.valid()) ::dup2(kept_.get(), STDOUT_FILENO);
  }

 private:
  base::UniqueFd kept_;
};

Result<> run_program(const machines::AgentClient& agent, const RunStep& step) {
  machines::ExecOptions options;
  options.program.arguments = step.command;
  options.program.environment = step.environment;
  options.program.directory = step.directory;
  options.program.user = step.user;
  const OutputToErrors redirected;
  TRY_ASSIGN(const auto outcome, machines::run_exec_session(agent, std::move(options)));
  if (!outcome.message.empty()) return fail("{}", outcome.message);
  if (outcome.status != 0) return fail("it ended with status {}", outcome.status);
  return {};
}

Result<image::Tree> take_upper(const machines::AgentClient& agent, const RunStep& step) {
  // The second mount of a block device is the same file system: what was written is seen at once.
  TRY(agent.mount_disk({.device = "/dev/vdb", .type = "ext4", .path = kUpper}));
  std::string path = (step.spool_folder.empty() ? "/tmp" : step.spool_folder) + "/tmp-upper-XXXXXX";
  const base::UniqueFd archive(::mkostemp(path.data(), O_CLOEXEC));
  if (!archive.valid()) return fail_errno("cannot create a file in {}", step.spool_folder);
  ::unlink(path.c_str());
  TRY_ASSIGN(
      const auto copied,
      agent.copy_out({.path = std::string(kUpper) + "/upper", .contents = true}, archive.get()));
  if (copied.problems != 0)
    return fail("what it wrote cannot be read: {}", copied.messages.front());
  if (::lseek(archive.get(), 0, SEEK_SET) < 0) return fail_errno("cannot read the step's files");
  image::Tree tree(step.spool_folder);
  TRY(image::apply_layer(
      tree, image::fd_bytes(archive.get(), "step"),
      {.name = "what the step wrote", .diff_id = {}, .whiteouts = false, .limits = {}}));
  TRY(upper_to_layer(tree));
  return tree;
}

machines::MachineSpec spec_of(const RunStep& step) {
  machines::MachineSpec spec;
  spec.name = fmt::format("build-{}", ::getpid());
  spec.hostname = "build";
  spec.cpus = step.cpus;
  spec.memory_mib = step.memory_mib;
  spec.rootfs = step.root;
  spec.network.enabled = step.net;
  spec.labels = {{kLabel, std::to_string(::getpid())}};
  if (!step.directory.empty()) spec.folders = {step.directory};
  return spec;
}

}  // namespace

Result<image::Tree> run_layer(machines::Machines& all, const RunStep& step) {
  remove_leftovers(all);
  const auto spec = spec_of(step);
  TRY(all.create(spec));
  const auto work = [&]() -> Result<image::Tree> {
    TRY_ASSIGN(const auto record, all.start(spec.name, step.start));
    const machines::AgentClient agent(machines::vsock_socket(record), kPatience);
    TRY(run_program(agent, step));
    return take_upper(agent, step);
  };
  auto layer = work();
  const auto removed = all.remove(spec.name, true);
  if (layer && !removed) return std::unexpected(removed.error());
  return layer;
}

}  // namespace smol::build

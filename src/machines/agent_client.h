// Requests to the agent in a running machine: one connection each, through the monitor's vsock
// socket.
//
// Every call connects, speaks, and closes; so calls from several threads or processes do not
// disturb each other. Each has a deadline for the agent's first word and for silence in the middle
// (`patience_ns`), since a guest may be paused, hung or hostile. Errors say what the guest said.
// Blocking; programs with streams are exec_session.h.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/fd.h"
#include "machines/guest_setup.h"

namespace smol::machines {

struct GuestStats {
  u64 uptime_ns = 0, realtime_ns = 0;
  u64 memory_total = 0, memory_free = 0, memory_available = 0, memory_cached = 0,
      swap_used = 0;  // bytes
  double load_1 = 0, load_5 = 0, load_15 = 0;
  u64 processes = 0, processes_running = 0, cpus = 0;
  u64 cpu_busy_ns = 0, cpu_idle_ns = 0;  // since boot, all CPUs together
  u64 root_total = 0, root_free = 0;     // bytes of the root file system
};

// How a program in a guest ended.
struct ProgramEnd {
  u32 kind = 0;  // enum smol_exit_kind
  i32 value = 0;
  std::string text;      // why, where it is not an ordinary end
  std::string out, err;  // of AgentClient::run: the first 64 KiB of each
};

struct CopyIn {
  std::string path;   // absolute, in the guest
  bool into = false;  // `path` is the folder that takes all members; else as cp's last argument
  bool owner = false, mode = false;  // uid and gid, mode below replace the archive's
  u32 uid = 0, gid = 0, mode_bits = 0;
};

struct CopyOut {
  std::string path;       // absolute, in the guest
  bool follow = false;    // the path's own symbolic link is followed
  bool contents = false;  // members are named relative to the path
};

// What could not be copied: "path: reason", a line each (at most 100 kept), and how many in all.
struct CopyResult {
  u64 problems = 0, bytes = 0;  // bytes: of the archive
  std::vector<std::string> messages;
};

// Called now and then with the archive's bytes so far.
using CopyProgress = std::function<void(u64 bytes)>;

class AgentClient {
 public:
  static constexpr u64 kPatience = 10'000'000'000;  // ns

  // socket: the monitor's vsock socket, a path or "@name". Connects only when something is asked.
  explicit AgentClient(std::string socket, u64 patience_ns = kPatience)
      : socket_(std::move(socket)), patience_ns_(patience_ns) {}

  // A connection whose next bytes are the guest's HELLO.
  Result<base::UniqueFd> open() const;

  // The machine's agent answers.
  Result<> ping() const;
  Result<GuestStats> stats() const;
  // Returns when the guest took it; the machine ends by itself within the grace plus a few seconds.
  Result<> shutdown(u64 grace_ns, bool reboot = false) const;
  Result<> set_time(u64 ns_since_1970) const;
  Result<> mount(const GuestMount& mount) const;
  Result<> unmount(const std::string& path) const;
  Result<> mount_disk(const GuestDisk& disk) const;
  Result<> add_secret(const GuestSecret& secret) const;
  Result<> add_forward(const GuestForward& forward) const;
  Result<> add_network(const GuestNetwork& network) const;

  // The program's process id in the guest. It keeps running whoever goes away.
  Result<u32> exec_detached(RunConfig program) const;
  // Runs a program without input to its end (health commands, scripts). timeout_ns: 0 none; kept by
  // the guest, so that a program that runs over it is killed there (kind SMOL_EXIT_TIMEOUT).
  Result<ProgramEnd> run(RunConfig program, u64 timeout_ns) const;

  // A tar archive (ustar, pax or GNU) from `archive`, read to its end, unpacked in the guest.
  Result<CopyResult> copy_in(const CopyIn& request, int archive,
                             const CopyProgress& progress = {}) const;
  // A pax archive of the guest's path, written to `archive`.
  Result<CopyResult> copy_out(const CopyOut& request, int archive,
                              const CopyProgress& progress = {}) const;

  // The same from and to trees of this host. `from` keeps its last component as the archive's
  // first. Other than the superuser cannot give files away: owners are then kept only where they
  // are the caller's.
  Result<CopyResult> copy_tree_in(const std::string& from, const CopyIn& request,
                                  const CopyProgress& progress = {}) const;
  // `to` is as cp's last argument: an existing folder takes the copy, else it is the copy's name.
  Result<CopyResult> copy_tree_out(const CopyOut& request, const std::string& to,
                                   const CopyProgress& progress = {}) const;

  // A raw stream to a Unix socket in the guest.
  Result<base::UniqueFd> connect_unix(const std::string& guest_path) const;

 private:
  Result<> setup(Result<std::vector<u8>> payload) const;

  std::string socket_;
  u64 patience_ns_;
};

// --- The boot of a machine that stays up ---

// A Unix socket at `path` ("@name" for an abstract one), where the guest's first connection
// arrives: the monitor's
// --vsock socket plus "_1024". Create it before the monitor starts.
Result<base::UniqueFd> listen_for_guest(const std::string& path);
// Waits on `listener` for the guest, hands it its setup, and returns when its agent listens
// (READY). monitor_pidfd: its end ends the wait (-1: not watched). What the guest says of a failure
// is the Error.
Result<> boot_agent(int listener, int monitor_pidfd, const GuestSetup& setup, u64 timeout_ns);

}  // namespace smol::machines

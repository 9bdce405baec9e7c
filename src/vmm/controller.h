// The monitor's one authority: it owns the machine's configuration and at most one Machine, and
// executes requests from one queue, on the main thread, one after the other.
//
// States, as Cloud Hypervisor has them:
//                 vm.create            vm.boot              vm.pause
//     (nothing) ------------> Created ---------> Running <-----------> Paused
//         ^                      |        ^        |      vm.resume      |
//         |       vm.delete      |        |        | vm.shutdown, the    |
//         +----------------------+        |        | guest's end         |
//         +------------------------- Shutdown <----+---------------------+
// A request that the state does not have is refused with the state's name. vm.delete ends a running
// machine first; devices are added and removed before the boot only, but for shared directories.
//
// The guest's end: a power-off ends the monitor, unless it is told to stay; a reset or triple fault
// boots the machine anew in the same process when it has an API (Cloud Hypervisor's ways), and ends
// the monitor when not.
#pragma once

#include <pthread.h>

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>

#include "api/answer.h"
#include "api/error.h"
#include "api/request.h"
#include "base/fd.h"
#include "sandbox/namespaces.h"
#include "vmm/config.h"
#include "vmm/event_monitor.h"
#include "vmm/machine.h"

namespace smol::vmm {

enum class AfterReset { kBootAnew, kEnd };
enum class AfterEnd { kEndMonitor, kStay };

class Controller {
 public:
  static constexpr std::size_t kMostQueued = 32;

  struct Options {
    MachineConfig base;  // what requests do not say: accelerator, tables, ...
    AfterReset after_reset = AfterReset::kEnd;
    AfterEnd after_end = AfterEnd::kEndMonitor;
  };
  using Respond = std::function<void(api::Outcome<api::Answer>)>;

  static Result<std::unique_ptr<Controller>> create(Options options, EventMonitor events);
  ~Controller();

  // The command line's machine: booted before any request, and before the process has other
  // threads.
  Result<> boot_at_start(const MachineConfig& config);

  // Any thread. respond is called once, on the main thread, or at once on the caller's when the
  // queue is full or the monitor ends.
  void submit(api::Request request, Respond respond);
  // The monitor is to end, its machine with it. Async-signal-safe, any thread; from a handler on
  // the main thread also when main waits for something that the machine does not get done.
  void stop();

  // The main thread: until the monitor ends. Its exit status; an Error when the first boot or the
  // machine failed.
  Result<int> run();

 private:
  struct Queued {
    api::Request request;
    Respond respond;
  };
  using Outcome = api::Outcome<api::Answer>;

  Controller(Options options, EventMonitor events)
      : options_(std::move(options)), events_(std::move(events)) {}

  std::optional<Queued> next();
  void refuse_rest();
  Outcome execute(api::Request& request);

  // Requests (controller_requests.cc): one overload each.
  Outcome execute(api::VmmPing&);
  Outcome execute(api::VmmShutdown&);
  Outcome execute(api::VmGetInfo&);
  Outcome execute(api::VmGetCounters&);
  Outcome execute(api::VmCreate& request);
  Outcome execute(api::VmDelete&);
  Outcome execute(api::VmBoot&);
  Outcome execute(api::VmPause&);
  Outcome execute(api::VmResume&);
  Outcome execute(api::VmShutdown&);
  Outcome execute(api::VmReboot&);
  Outcome execute(api::VmPowerButton&);
  Outcome execute(api::VmNmi&);
  Outcome execute(api::VmResize& request);
  Outcome execute(api::VmResizeDisk& request);
  Outcome execute(api::VmAddDisk& request);
  Outcome execute(api::VmAddNet& request);
  Outcome execute(api::VmAddVsock& request);
  Outcome execute(api::VmAddShare& request);
  Outcome execute(api::VmRemoveDevice& request);
  Outcome execute(api::NotSupported& request);
  Outcome remove_from_config(const std::string& id);
  // Its place among the disks.
  std::optional<std::size_t> find_disk(const std::string& id) const;

  api::Outcome<> need_created(std::string_view call) const;
  api::Outcome<> need_state(std::string_view call,
                            std::initializer_list<api::VmState> states) const;
  // Before the boot: devices go into the configuration. After: refused, with `what` named.
  api::Outcome<> need_cold(std::string_view call, std::string_view what) const;

  Result<> boot();
  // Stops the machine and takes it apart.
  void end_machine();
  Result<> reboot();
  // The machine ended by itself.
  void machine_ended();
  void note_statistics();

  const Options options_;
  EventMonitor events_;
  base::UniqueFd wake_;
  std::atomic<bool> stop_{false};
  std::atomic<bool> machine_ended_{false};
  std::atomic<Machine*> stoppable_{nullptr};  // machine_ while its threads run
  const pthread_t main_ = ::pthread_self();   // who creates it runs it
  const i64 pid_ = sandbox::process_on_host();

  std::mutex mutex_;
  std::deque<Queued> queue_;  // guarded by mutex_
  bool ending_ = false;       // guarded by mutex_: no more requests

  // Main thread only.
  std::optional<MachineConfig> config_;
  api::VmConfig shown_;              // config_ as it was given
  std::vector<base::UniqueFd> fds_;  // of TAPs in config_
  std::unique_ptr<Machine> machine_;
  api::VmState state_ = api::VmState::kCreated;
  bool confined_ = false;     // to the files of the first machine
  bool host_network_ = true;  // once confined: the first machine's plan kept the host's network
  bool alone_ = false;        // no other thread than this one runs yet
  std::optional<int> exit_status_;
  std::optional<Error> failure_;
};

}  // namespace smol::vmm

// One vCPU and the thread that runs it: a state machine that moves by messages.
//
//   created --start--> running <--resume/pause--> paused
//       \__ start(paused) ___________________________/     any --stop, failure, end of the
//       machine--> stopped
//
// The vCPU itself belongs to its thread; whoever wants something of it posts a message and kicks. A
// message is taken between two runs of the guest, so a vCPU that stands in `paused` stands between
// two instructions with its I/O served, and its state can be saved. Threads: all members but
// run_on() may be called from any thread but the vCPU's own; stop() and kick() also from signal
// handlers.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "hypervisor/hypervisor.h"

namespace smol::vmm {

enum class VcpuState : u32 { kCreated, kRunning, kPaused, kStopped };
std::string_view name_of(VcpuState state);  // "created", ...

// Who serves the guest's accesses; called on the vCPU's thread, of several vCPUs at once.
class VcpuExits {
 public:
  virtual ~VcpuExits() = default;
  // False: the machine has ended, the vCPU stops.
  virtual Result<bool> serve(u32 vcpu, const hypervisor::Exit& exit) = 0;
  // The back end or serve() failed; the vCPU stops after it.
  virtual void vcpu_failed(u32 vcpu, const Error& error) = 0;
};

// Exits of one vCPU so far.
struct VcpuStats {
  u64 exits[std::variant_size_v<hypervisor::Exit>] = {};
  std::map<u16, u64> ports;       // by first port
  std::map<u64, u64> mmio_pages;  // by the page's address
  u64 instructions = 0;           // retired; 0 where the back end cannot tell
  hypervisor::Vcpu::CodeCache code_cache;
};

class VcpuThread {
 public:
  // exits must outlive the thread.
  VcpuThread(u32 id, std::unique_ptr<hypervisor::Vcpu> vcpu, VcpuExits& exits)
      : id_(id), vcpu_(std::move(vcpu)), exits_(exits) {}
  ~VcpuThread();  // stops and joins
  VcpuThread(const VcpuThread&) = delete;
  VcpuThread& operator=(const VcpuThread&) = delete;

  u32 id() const { return id_; }
  VcpuState state() const { return state_.load(std::memory_order_acquire); }

  // Once.
  void start(bool paused = false);
  // Messages: they return at once; wait_until() tells when the vCPU is there.
  void pause() { post({.kind = Message::Kind::kPause, .call = {}}); }
  void resume() { post({.kind = Message::Kind::kResume, .call = {}}); }
  void nmi();
  void stop();
  // False: the vCPU stopped instead.
  bool wait_until(VcpuState wanted) const;
  void join();

  // Runs function with the vCPU between two of its runs, on its thread (or here, while there is
  // none), and waits for it. Paused or not. An Error: the function's, or that the vCPU stopped
  // before it came to it.
  Result<> run_on(std::function<Result<>(hypervisor::Vcpu&)> function);

  VcpuStats stats() const;
  u64 all_exits() const;
  u64 retired_instructions() const { return vcpu_->retired_instructions(); }

 private:
  struct Message {
    enum class Kind { kPause, kResume, kCall } kind;
    std::function<void(hypervisor::Vcpu*)> call;  // nullptr: the vCPU stopped
  };

  void post(Message message);
  void run();
  void run_guest();
  void take_messages();
  void set_state(VcpuState state);
  void count(const hypervisor::Exit& exit);
  void close_mailbox();

  const u32 id_;
  const std::unique_ptr<hypervisor::Vcpu> vcpu_;
  VcpuExits& exits_;
  std::thread thread_;
  std::atomic<VcpuState> state_{VcpuState::kCreated};
  std::atomic<bool> stopping_{false};
  std::atomic<u32> mail_{0};  // counts messages and stops; a paused vCPU waits for it to change

  std::mutex mailbox_mutex_;
  std::deque<Message> mailbox_;
  bool closed_ = false;

  std::atomic<u64> exit_counts_[std::variant_size_v<hypervisor::Exit>] =
      {};  // written by the vCPU's thread only
  mutable std::mutex places_mutex_;
  std::map<u16, u64> ports_;
  std::map<u64, u64> mmio_pages_;
};

}  // namespace smol::vmm

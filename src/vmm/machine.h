// The assembler: a MachineConfig becomes memory, buses, devices, a Vm and its vCPU threads; run()
// waits for the machine's end.
//
// Each kind of device has an add_<device>.cc of its own; this header is all that they share.
// Threads (docs/threads.md): the caller's, which waits; "vcpuN", which run the guest and serve the
// buses; "devices", the event loop of queues, consoles and sockets.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "base/event_loop.h"
#include "base/terminal.h"
#include "devices/bus/bus.h"
#include "devices/legacy/i8042.h"
#include "devices/legacy/machine_events.h"
#include "devices/virtio/queue/device.h"
#include "devices/virtio/transport/mmio.h"
#include "hypervisor/hypervisor.h"
#include "vmm/config.h"
#include "vmm/console_log.h"
#include "vmm/line.h"
#include "vmm/stats.h"
#include "vmm/vcpu_thread.h"

namespace smol::arch::x86_64 {
struct BootPlan;
}
namespace smol::devices::legacy {
class AcpiPm;
class Uart16550;
}  // namespace smol::devices::legacy
namespace smol::devices::virtio {
class Balloon;
class Block;
class Console;
class P9;
class Vsock;
}  // namespace smol::devices::virtio

namespace smol::vmm {

enum class EndReason { kPowerOff, kReset, kTripleFault, kDebugExit, kStopped, kFailed };

// A device as the API tells of it.
struct DeviceReport {
  std::string
      id;  // as in the configuration; "__" in front of those that are not there more than once
  std::string kind;  // "virtio-blk", ...
  std::vector<devices::virtio::Counter> counters;
};

struct MachineEnd {
  EndReason reason = EndReason::kPowerOff;
  u8 debug_status = 0;  // kDebugExit
  std::string text;     // kFailed: what happened
};

class Machine : private devices::legacy::MachineEvents, private VcpuExits {
 public:
  // Builds everything; nothing runs yet. Errors name the part and what to do.
  static Result<std::unique_ptr<Machine>> create(const MachineConfig& config);
  ~Machine() override;
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  // A machine runs once: start(), then wait() for its end, which the guest, stop() or a failure
  // brings. run() is both. paused: the vCPUs stand in front of their first instruction until
  // resume().
  Result<> start(bool paused = false);
  MachineEnd wait();
  Result<MachineEnd> run();
  // Any thread, async-signal-safe.
  void stop();
  // Called once, when the machine's end is decided, on whichever thread decided it, maybe with a
  // device's lock held: it may only note and wake. Not called for stop(). Before start().
  void on_end(std::function<void()> observer) { end_observer_ = std::move(observer); }

  // While a started machine lives; any thread but a vCPU's or the device loop's. When pause()
  // returns, every vCPU stands between two instructions with its accesses served, the device loop
  // serves nothing but functions posted to it, and the devices have finished what they had begun
  // (VirtioDevice::pause): guest memory, disks and shared directories stand still until resume().
  // It waits as long as the slowest request to the host that has begun. Pausing a paused machine
  // and resuming a running one are errors; so is either on one that has ended.
  Result<> pause();
  Result<> resume();
  bool paused() const { return paused_.load(std::memory_order_acquire); }
  // A non-maskable interrupt to every vCPU (as Cloud Hypervisor's vm.nmi).
  Result<> nmi();

  // Makes a disk larger (bytes, a multiple of 512) and tells the guest; any thread but a vCPU's or
  // the device loop's. id: of its DiskConfig, or _disk0, _disk1, ... in order.
  Result<> resize_disk(std::string_view id, u64 size);

  // A running machine's shared directories; any thread but a vCPU's or the device loop's. What the
  // guest has of a removed share fails with ESTALE, and the host directory is not touched again. A
  // machine without the 9P device refuses.
  Result<> add_share(const ShareConfig& share);
  Result<> remove_share(std::string_view tag);

  // Presses the ACPI power button; what the guest does about it is the guest's. An Error on a
  // machine without ACPI. Any thread.
  Result<> power_button();
  // The virtio devices, with what they have done so far. Any thread but the device loop's.
  std::vector<DeviceReport> device_reports() const;
  // Asks the guest to give up that many bytes of its memory, rounded down to pages; it follows as
  // it can. Less than before gives them back to it. Refused: a machine without a balloon, more than
  // the machine has.
  Result<> set_balloon(u64 bytes);
  // Has the guest tell its memory figures, which device_reports() then has among the balloon's.
  // Waits for the guest, but not long; at once when it is paused or has no such driver.
  void ask_guest_memory();
  // The guest's memory less what is in the balloon now.
  u64 memory_actual_size() const;

  // A sum over the vCPUs, any time, any thread.
  Stats stats() const;

 private:
  explicit Machine(const MachineConfig& config) : config_(config) {}

  // Assembling, in this order.
  Result<> create_vm();
  Result<> add_legacy();
  Result<> add_rtc();
  Result<> add_acpi();
  Result<> add_serial();
  Result<> add_console();
  Result<> add_disks();
  Result<> add_nets();
  Result<> add_rng();
  Result<> add_vsock();
  Result<> add_shares();
  Result<> add_balloon();
  Result<> load();
  Result<arch::x86_64::BootPlan> load_payload(std::string cmdline,
                                              std::optional<memory::GuestPhysical> rsdp);
  // MP table always, ACPI tables when configured: gives the RSDP's address then.
  Result<std::optional<memory::GuestPhysical>> write_tables();
  // id: as configured; empty: made of the kind and how many there were before.
  Result<> add_virtio(std::unique_ptr<devices::virtio::VirtioDevice> device, std::string id = {});
  Result<> make_registers_cheap(devices::virtio::MmioTransport& transport, u64 base);
  std::string default_id(u32 device_id) const;
  devices::InterruptLine& line(u32 gsi);
  Result<> add_port_device(std::unique_ptr<devices::Device> device, u64 port, u64 size);

  // VcpuExits (run.cc)
  Result<bool> serve(u32 vcpu, const hypervisor::Exit& exit) override;
  void vcpu_failed(u32 vcpu, const Error& error) override;
  void serve_port(const hypervisor::ExitPortIo& io);
  void serve_mmio(const hypervisor::ExitMmio& io);
  void take_posted_writes();
  void end(MachineEnd reason);
  void wait_for_threads();
  bool ended() const { return stopping_.load(std::memory_order_acquire); }

  // devices::legacy::MachineEvents
  void reset_requested() override { end({.reason = EndReason::kReset, .text = {}}); }
  void power_off_requested() override { end({.reason = EndReason::kPowerOff, .text = {}}); }
  void debug_exit(u8 status) override {
    end({.reason = EndReason::kDebugExit, .debug_status = status, .text = {}});
  }
  void boot_marker(u8 value) override;

  void read_serial_input();
  void write_serial(ConstByteSpan bytes);

  const MachineConfig config_;
  std::string accel_;
  std::unique_ptr<base::EventLoop> loop_;
  std::unique_ptr<memory::GuestMemory> memory_;
  std::unique_ptr<hypervisor::Hypervisor> hypervisor_;
  std::unique_ptr<hypervisor::Vm> vm_;
  u32 next_slot_ = 0;  // of vm_'s memory
  std::vector<std::unique_ptr<VcpuThread>> vcpus_;
  devices::Bus ports_{"port"}, mmio_{"MMIO"};
  std::deque<Line> lines_;
  std::vector<std::unique_ptr<devices::Device>> owned_;
  std::vector<std::unique_ptr<devices::virtio::MmioTransport>> virtio_;
  std::vector<std::string> virtio_ids_;  // of virtio_, in its order
  std::unique_ptr<base::RawTerminal> terminal_;
  std::unique_ptr<devices::legacy::I8042> keyboard_;
  devices::legacy::Uart16550* uart_ = nullptr;
  devices::legacy::AcpiPm* acpi_ = nullptr;
  devices::virtio::Console* console_ = nullptr;
  std::vector<std::pair<std::string, devices::virtio::Block*>> disks_;  // with their ids
  devices::virtio::Vsock* vsock_ = nullptr;
  devices::virtio::P9* shares_ = nullptr;
  devices::virtio::Balloon* balloon_ = nullptr;
  base::UniqueFd serial_file_;
  int serial_out_ = -1;
  ConsoleLog serial_log_;        // of serial_out_
  std::vector<u8> serial_held_;  // input that the UART had no room for; loop thread

  std::unique_ptr<base::Timer> settled_;  // some seconds after the start, once
  std::thread devices_thread_;
  std::mutex pause_mutex_;  // of start, pause, resume
  bool started_ = false;
  std::atomic<bool> paused_{false};

  mutable std::mutex marks_mutex_;  // how init was reached
  std::optional<u64> ns_to_init_, instructions_to_init_;
  u64 exits_to_init_ = 0;

  std::atomic<bool> stopping_{false};
  std::function<void()> end_observer_;
  std::mutex end_mutex_;
  std::optional<MachineEnd> end_;
};

}  // namespace smol::vmm

// The boundary between the monitor and whatever runs guest instructions.
//
// Narrow on purpose (after crosvm's hypervisor crate): a Vm maps memory and routes interrupts, a
// Vcpu runs until an Exit, which is a value. Nobody above this line includes a KVM header, and no
// back end knows a device. Capabilities are asked, never assumed from the back end's name.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.h"
#include "hypervisor/cpu_state.h"
#include "memory/guest_memory.h"

namespace smol::hypervisor {

using memory::GuestPhysical;

enum class CpuModel { kHost, kX86_64V1, kX86_64V2, kX86_64V3 };
std::string_view name_of(CpuModel model);                 // "host", "x86-64-v1", ...
Result<CpuModel> parse_cpu_model(std::string_view name);  // the error lists the names

// --- Exits
// -----------------------------------------------------------------------------------------------------
// Spans point into the Vcpu and stay valid until its next run(). For a read, the caller fills
// `data` before that next run(), which completes the instruction.

struct ExitMmio {
  GuestPhysical address;
  bool write = false;
  ByteSpan data;  // 1, 2, 4 or 8 bytes
};
struct ExitPortIo {
  u16 port = 0;
  bool write = false;
  u8 size = 1;    // 1, 2 or 4 bytes an element
  ByteSpan data;  // size * count bytes (string I/O may bring several at once)
};
struct ExitHalt {
};  // HLT and nothing to wake it in this back end (only without an in-kernel irqchip)
struct ExitShutdown {};         // triple fault
struct ExitInterrupted {};      // kick(), or a signal
struct ExitInterruptWindow {};  // asked for by request_interrupt_window()
struct ExitDebug {              // breakpoint or single step asked for by the monitor
  u64 rip = 0;
};
struct ExitFailed {  // the back end cannot go on; text says what and where (RIP, bytes)
  std::string reason;
};
using Exit = std::variant<ExitMmio, ExitPortIo, ExitHalt, ExitShutdown, ExitInterrupted,
                          ExitInterruptWindow, ExitDebug, ExitFailed>;
// Index into Exit's alternatives -> "mmio", "port-io", "halt", "shutdown", ... for counters.
std::string_view exit_name(std::size_t alternative);

class Vcpu {
 public:
  virtual ~Vcpu() = default;

  // Runs guest instructions until something needs the caller. Only the vCPU's own thread. An Error
  // is the host's failure; what the guest did is an Exit.
  virtual Result<Exit> run() = 0;
  // Makes a running or the next run() return ExitInterrupted soon. Any thread, async-signal-safe.
  // Never lost.
  virtual void kick() = 0;

  // Only between runs, on the vCPU's thread (or before it starts). A pending MMIO or port read is
  // completed first.
  virtual Result<CpuState> get_state() = 0;
  virtual Result<> set_state(const CpuState& state) = 0;

  // Without an in-kernel irqchip (VmConfig::irqchip = kNone): deliver an external interrupt now.
  // Fails when the guest cannot take it (RFLAGS.IF=0 or shadow): ask for a window first.
  virtual Result<> inject_interrupt(u8 vector) = 0;
  virtual bool can_inject_interrupt() = 0;
  virtual void request_interrupt_window(bool on) = 0;
  virtual Result<> inject_nmi() = 0;
  // The guest stood still because the monitor paused it: kvmclock says so, and a Linux guest's
  // watchdogs do not take the time for a lock-up. On the vCPU's thread, between runs.
  virtual void guest_was_paused() {}

  // Guest instructions retired since creation: exact on the software CPU, 0 where the back end
  // cannot tell. Any thread (a lower bound while running; exact from inside an exit on the vCPU's
  // thread).
  virtual u64 retired_instructions() const { return 0; }
  // Decoded code that the software CPU holds (bytes), and how often it gave all of it back to the
  // host because the guest idled. Zeroes elsewhere. Any thread.
  struct CodeCache {
    u64 bytes = 0, trims = 0;
  };
  virtual CodeCache code_cache() const { return {}; }
};

// --- Vm
// ----------------------------------------------------------------------------------------------------------

enum class Irqchip {
  kFull,   // local APIC, I/O APIC, PIC, PIT in the back end
  kSplit,  // local APIC only; the caller emulates the rest and sends MSIs
  kNone,   // the caller injects vectors
};

struct VmConfig {
  CpuModel model = CpuModel::kHost;
  Irqchip irqchip = Irqchip::kFull;
  u32 cpu_count = 1;
  // Software CPU: time is derived from retired instructions (1 ns each) and random numbers from a
  // fixed seed. Devices still answer when the host has the answer, and the real-time clock is the
  // host's.
  bool deterministic = false;
};

struct MemorySlot {
  u32 slot = 0;
  GuestPhysical start;
  u64 size = 0;  // 0 removes the slot
  u8* host = nullptr;
  bool read_only = false;  // guest writes become ExitMmio
  bool log_dirty = false;
};

struct Msi {
  u64 address = 0;
  u32 data = 0;
};

struct Capabilities {
  bool irqchip_full = false, irqchip_split = false;
  bool irqfd = false, ioeventfd = false;
  bool dirty_log = false, read_only_memory = false;
  bool posted_writes = false;  // Vm::post_writes()
  bool counts_instructions = false;
  bool deterministic = false;
  u32 max_vcpus = 1;
  std::vector<CpuModel> models;
};

class Vm {
 public:
  virtual ~Vm() = default;

  virtual const Capabilities& capabilities() const = 0;
  // id: 0 .. cpu_count-1, also the local APIC's id. The Vm outlives its Vcpus.
  virtual Result<std::unique_ptr<Vcpu>> create_vcpu(u32 id) = 0;

  virtual Result<> set_memory_slot(const MemorySlot& slot) = 0;
  // One bit a page of the slot; taken and cleared. The slot must log.
  virtual Result<std::vector<u64>> take_dirty_log(u32 slot) = 0;

  // Interrupt lines (GSI 0-23 of the I/O APIC; 0-15 also of the PICs). Any thread.
  virtual Result<> set_irq_line(u32 gsi, bool level) = 0;
  virtual Result<> send_msi(const Msi& msi) = 0;
  // Writing the eventfd pulses the line (edge). The Vm keeps its own reference.
  virtual Result<> add_irqfd(int eventfd, u32 gsi) = 0;
  virtual Result<> remove_irqfd(int eventfd, u32 gsi) = 0;

  // A guest write of `size` bytes (0: any) at the address, equal to *match when given, signals the
  // eventfd and makes no exit.
  struct IoEvent {
    int eventfd = -1;
    bool port = false;  // port I/O instead of MMIO
    u64 address = 0;
    u32 size = 0;
    bool has_match = false;
    u64 match = 0;
  };
  virtual Result<> add_ioevent(const IoEvent& event) = 0;
  virtual Result<> remove_ioevent(const IoEvent& event) = 0;

  // Guest writes into [address, address + size) make no exit any more: they are kept, in their
  // order, until take_posted_writes(). When there is no room they are ordinary exits. Before the
  // first create_vcpu(). For registers that only need to be written when somebody looks; whoever
  // serves an exit takes the posted writes before it.
  virtual Result<> post_writes(GuestPhysical, u64) { return fail("this back end posts no writes"); }
  // Each write is handed over once, by one of several takers at a time. Any thread; cheap when
  // there are none.
  virtual void take_posted_writes(const std::function<void(GuestPhysical, ConstByteSpan)>&) {}
};

class Hypervisor {
 public:
  virtual ~Hypervisor() = default;
  virtual std::string_view name() const = 0;  // "kvm" or "soft"
  virtual const Capabilities& capabilities() const = 0;
  // memory: told of to the back end for DMA notices; slots are still set by the caller. It outlives
  // the Vm.
  virtual Result<std::unique_ptr<Vm>> create_vm(const VmConfig& config,
                                                memory::GuestMemory& memory) = 0;
};

}  // namespace smol::hypervisor

// A bare virtual machine for one scenario: a little RAM, a few tables, one or more vCPUs, no
// devices but the back end's own. Every scenario is one body that is given an accelerator's name
// and runs the same on each.
//
// Guests talk with OUT: the host sees each as an exit. In long mode every vector of the IDT leads
// to a stub that pushes a zero where the processor pushes no error code, then its number, and exits
// through kFaultPort; run_to_fault() reads that frame. A guest that does not come back is kicked by
// a watchdog and reported as such, so nothing hangs.
#pragma once

#include <gtest/gtest.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "hypervisor/hypervisor.h"

namespace smol::conformance {

using namespace hypervisor;

// --- Guest-physical layout
// -------------------------------------------------------------------------------------
inline constexpr u64 kRamSize = 2 * kMiB;
inline constexpr u64 kCode = 0x1000;      // scenarios' code, up to kData
inline constexpr u64 kData = 0x4000;      // scratch
inline constexpr u64 kStackTop = 0x7000;  // grows down to 0x6000
inline constexpr u64 kGdt = 0x8000;
inline constexpr u64 kIdt = 0x9000;
inline constexpr u64 kTss = 0xa000;
inline constexpr u64 kStubs = 0x10000;  // 256 stubs of 16 bytes
inline constexpr u64 kStubTail = 0x12000;
inline constexpr u64 kPml4 =
    0x20000;  // then the PDPT and four page directories: 4 GiB, one to one, 2 MiB pages
inline constexpr u64 kSpare = 0x100000;     // free
inline constexpr u64 kMmio = 0xd0000000;    // nothing there
inline constexpr u64 kRing0Stack = 0xf000;  // where ring 3 faults land

// --- Selectors of the GDT
// --------------------------------------------------------------------------------------
inline constexpr u16 kCode64 = 0x08, kData0 = 0x10, kCode32 = 0x18, kCode16 = 0x20, kData16 = 0x28;
inline constexpr u16 kUserCode64 = 0x30 | 3, kUserData = 0x38 | 3, kNotPresent = 0x40, kTask = 0x48;

inline constexpr u8 kFaultPort = 0xf0;

// Encoding order of the general registers.
enum Gpr {
  kRax,
  kRcx,
  kRdx,
  kRbx,
  kRsp,
  kRbp,
  kRsi,
  kRdi,
  kR8,
  kR9,
  kR10,
  kR11,
  kR12,
  kR13,
  kR14,
  kR15
};

// What a stub found on its stack, and CR2.
struct Fault {
  u64 vector = ~u64{0}, error = 0, rip = 0, cs = 0, rflags = 0, rsp = 0, ss = 0, cr2 = 0;
};

struct Options {
  Irqchip irqchip = Irqchip::kNone;
  u32 cpu_count = 1;
  bool log_dirty = false;
  CpuModel model = CpuModel::kX86_64V1;
};

// The accelerators that the scenarios run on: set by main() before the tests are registered.
std::vector<std::string>& accelerators();
// The back end of that name, opened once.
Hypervisor& hypervisor_of(const std::string& accelerator);

class Machine {
 public:
  explicit Machine(const std::string& accelerator, const Options& options = {});
  ~Machine();

  Vm& vm() { return *vm_; }
  Vcpu& vcpu(u32 id = 0) { return *vcpus_[id]; }
  u8* ram(u64 address) { return memory_->find(memory::GuestPhysical(address), 1); }
  template <class T>
  T peek(u64 address) {
    return base::load<T>(ram(address));
  }
  template <class T>
  void poke(u64 address, T value) {
    base::store(ram(address), value);
    memory_->note_written(memory::GuestPhysical(address), sizeof(T));
  }
  void load(u64 address, ConstByteSpan bytes);

  CpuState get_state(u32 id = 0);
  void set_state(const CpuState& state, u32 id = 0);

  // Put the first vCPU at the start of `code`, which is loaded at kCode.
  void start_real(ConstByteSpan code);
  void start_protected(ConstByteSpan code);
  void start_long(ConstByteSpan code);
  // As start_long, in ring 3 with IOPL 3.
  void start_user(ConstByteSpan code);

  // Each fails the test, naming what came instead, when the exit is another.
  Exit run(u32 id = 0);
  // The value of the next OUT to that port.
  u32 run_to_out(u16 port, u32 id = 0);
  Fault run_to_fault(u32 id = 0);
  // What run_to_fault() reads, when the exit is there already.
  Fault fault_of(const Exit& exit, u32 id = 0);
  template <class T>
  T run_to(u32 id = 0) {
    Exit exit = run(id);
    if (auto* wanted = std::get_if<T>(&exit)) return *wanted;
    ADD_FAILURE() << "unexpected " << describe(exit);
    return T{};
  }

  static std::string describe(const Exit& exit);
  // True once the watchdog had to step in.
  bool hung();

 private:
  std::optional<u32> out_of(const Exit& exit, u16 port);
  void write_tables(bool acknowledge);
  void watch();

  std::unique_ptr<memory::GuestMemory> memory_;
  std::unique_ptr<Vm> vm_;
  std::vector<std::unique_ptr<Vcpu>> vcpus_;
  CpuState reset_;

  std::mutex mutex_;
  std::condition_variable wake_;
  bool stop_ = false, hung_ = false;  // guarded by mutex_
  std::thread watchdog_;
};

// State of a vCPU in each mode, on top of `from` (a state after reset).
CpuState real_mode(CpuState from, u64 rip);
CpuState protected_mode(CpuState from, u64 rip);
CpuState long_mode(CpuState from, u64 rip);
CpuState user_mode(CpuState from, u64 rip);

class Conformance : public testing::TestWithParam<std::string> {};

// The name of an instance is the accelerator's.
#define SMOL_CONFORMANCE(suite)                                          \
  class suite : public Conformance {};                                   \
  GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(suite);                  \
  INSTANTIATE_TEST_SUITE_P(On, suite, testing::ValuesIn(accelerators()), \
                           [](const auto& info) { return info.param; })

}  // namespace smol::conformance

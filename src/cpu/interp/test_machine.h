// A CPU with some RAM for tests: 64-bit mode, CPL 0, flat segments, RAM mapped one to one (4 KiB
// pages below 2 MiB, 2 MiB pages above), interrupts off. Code goes in as bytes and runs until HLT;
// a fault becomes a shutdown unless the test sets up an IDT, and `fault()` tells the first one.
//
//   TestMachine machine;
//   machine.cpu().gpr[kRax] = 5;
//   EXPECT_EQ(machine.run({0x48, 0xff, 0xc0}), Stop::kHalt);  // inc rax
//   EXPECT_EQ(machine.cpu().gpr[kRax], 6);
#pragma once

#include <algorithm>
#include <initializer_list>
#include <memory>
#include <span>
#include <vector>

#include "base/check.h"
#include "cpu/interp/engine.h"
#include "cpu/interp/handler.h"
#include "cpu/interp/system.h"
#include "cpu/state/flags.h"

namespace smol::cpu {

class TestEnvironment : public Environment {
 public:
  CpuidResult cpuid(u32 leaf, u32, u64) override {
    return leaf == 0x80000008 ? CpuidResult{.eax = 0x3028} : CpuidResult{};  // 40 physical bits
  }
  bool read_msr(u32, u64& value) override {
    value = 0;
    return true;
  }
  bool write_msr(u32, u64) override { return true; }
  u64 read_tsc() override { return ++tsc; }
  u8 read_cr8() override { return cr8; }
  void write_cr8(u8 value) override { cr8 = value; }

  u64 tsc = 0;
  u8 cr8 = 0;
};

class TestMachine {
 public:
  // What lies where in guest-physical (and linear) memory.
  static constexpr u64 kTables = 0x1000;     // PML4, PDPT, PD, PT: 4 pages
  static constexpr u64 kPageTable = 0x4000;  // of the first 2 MiB
  static constexpr u64 kGdt = 0x6000, kIdt = 0x7000;
  static constexpr u64 kCode = 0x10000;   // where run() puts code
  static constexpr u64 kStack = 0x20000;  // RSP at the start; grows down
  static constexpr u64 kData = 0x30000;   // free for tests, up to the end
  static constexpr u64 kRam = 16 * kMiB;

  explicit TestMachine(u64 features = ~u64{0}) {
    auto memory = memory::GuestMemory::create(kRam);
    CHECK(memory.has_value());
    memory_ = std::move(*memory);
    engine_ = Engine::create(EngineConfig{.features = features}, *memory_, environment_);
    const PhysicalSlot slot{.id = 0, .start = 0, .size = kRam, .host = ram(0)};
    engine_->set_slots({&slot, 1});
    enter_long_mode();
  }

  Cpu& cpu() { return engine_->cpu(); }
  Engine& engine() { return *engine_; }
  TestEnvironment& environment() { return environment_; }
  memory::GuestMemory& memory() { return *memory_; }
  u8* ram(u64 address) { return memory_->regions()[0].host + address; }
  template <class T>
  T load(u64 address) {
    return base::load<T>(ram(address));
  }
  template <class T>
  void store(u64 address, T value) {
    base::store(ram(address), value);
  }
  // Writes behind the CPU's back, as a device does.
  void put(u64 address, std::span<const u8> bytes) {
    std::memcpy(ram(address), bytes.data(), bytes.size());
    engine_->invalidate_code(address, bytes.size());
  }
  void put(u64 address, std::initializer_list<u8> bytes) {
    put(address, std::span(bytes.begin(), bytes.size()));
  }

  // Puts the bytes and a HLT at kCode and runs from there.
  Stop run(std::initializer_list<u8> bytes) { return run(std::span(bytes.begin(), bytes.size())); }
  Stop run(std::span<const u8> bytes) {
    put(kCode, bytes);
    put(kCode + bytes.size(), {0xf4});
    return run_at(kCode);
  }
  Stop run_at(u64 rip, u64 instructions = 100'000'000) {
    cpu().rip = rip;
    return go(instructions);
  }
  // Runs on until something other than attention or the end of a slice.
  Stop go(u64 instructions = 100'000'000) {
    cpu().halted = false;
    const u64 end = cpu().retired + instructions;
    Stop stop;
    do {
      stop = engine_->run(end - cpu().retired);
    } while (stop == Stop::kAttention);
    return stop;
  }

  void enter_long_mode() {
    Cpu& c = cpu();
    reset(c);
    build_tables();
    c.cr0 = kCr0Pe | kCr0Pg | kCr0Wp | kCr0Ne | kCr0Et | kCr0Mp;
    c.cr3 = kTables;
    c.cr4 = kCr4Pae | kCr4Pge | kCr4Osfxsr | kCr4Osxmmexcpt;
    c.efer = kEferLme | kEferLma | kEferNxe | kEferSce;
    // Descriptors: 0x08 64-bit code, 0x10 data, 0x18 32-bit code, 0x23 user data, 0x2b user code.
    store<u64>(kGdt + 0x08, 0x00af9b000000ffff);
    store<u64>(kGdt + 0x10, 0x00cf93000000ffff);
    store<u64>(kGdt + 0x18, 0x00cf9b000000ffff);
    store<u64>(kGdt + 0x20, 0x00cff3000000ffff);
    store<u64>(kGdt + 0x28, 0x00affb000000ffff);
    c.gdtr = {.base = kGdt, .limit = 0x7f};
    c.idtr = {.base = kIdt, .limit = 0};
    c.segments[kCs] = {.base = 0, .limit = 0xffffffff, .selector = 0x08, .access = 0xa09b};
    for (const u8 index : {kEs, kSs, kDs, kFs, kGs})
      c.segments[index] = {.base = 0, .limit = 0xffffffff, .selector = 0x10, .access = 0xc093};
    c.cpl = 0;
    c.flags = 2;
    std::fill(c.gpr, c.gpr + 16, 0);
    c.gpr[kRsp] = kStack;
    c.rip = kCode;
    engine_->state_changed();
  }

 private:
  void build_tables() {
    store<u64>(kTables, 0x2003 | 4);
    store<u64>(0x2000, 0x3003 | 4);
    store<u64>(0x3000, kPageTable | 7);
    for (u64 i = 1; i < kRam / (2 * kMiB); ++i) store<u64>(0x3000 + i * 8, (i * 2 * kMiB) | 0x87);
    for (u64 i = 0; i < 512; ++i) store<u64>(kPageTable + i * 8, (i << 12) | 7);
  }

  TestEnvironment environment_;
  std::unique_ptr<memory::GuestMemory> memory_;
  std::unique_ptr<Engine> engine_;
};

}  // namespace smol::cpu

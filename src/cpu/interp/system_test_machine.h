// A small machine for the tests of system behaviour: 4 MiB of RAM, descriptor tables and page
// tables laid out below, and a handler for each vector that halts, so that a test sees which
// exception came, with which error code, and what was pushed.
#pragma once

#include <initializer_list>
#include <map>
#include <vector>

#include "cpu/interp/descriptor.h"
#include "cpu/interp/engine.h"
#include "cpu/interp/system.h"
#include "cpu/state/flags.h"

namespace smol::cpu::testing {

inline constexpr u64 kGdt = 0x1000, kIdt = 0x2000, kTss = 0x3000, kPages = 0x4000,
                     kHandlers = 0x8000, kCode = 0x10000, kKernelStack = 0x20000,
                     kIstStack = 0x28000, kUserStack = 0x30000, kUserCode = 0x40000,
                     kData = 0x50000;
// Selectors.
inline constexpr u16 kCode64 = 0x08, kDataSel = 0x10, kUserCode32 = 0x18 | 3, kUserData = 0x20 | 3,
                     kUserCode64 = 0x28 | 3, kTssSel = 0x30, kCode32 = 0x40, kAbsent = 0x48,
                     kReadOnly = 0x50, kConforming = 0x58, kGate = 0x60, kLdtSel = 0x70,
                     kCode16 = 0x80, kData16 = 0x88, kExecuteOnly = 0x90, kBeyond = 0x800;

class TestEnvironment : public Environment {
 public:
  CpuidResult cpuid(u32 leaf, u32 subleaf, u64) override {
    switch (leaf) {
      case 0:
        return {.eax = 0xd};
      case 1:
        return {.ecx = (1u << 26) | (1u << 20), .edx = 0x078bfbff};
      case 7:
        return {.ebx = (1u << 0) | (1u << 7) | (1u << 20), .ecx = 1u << 2};
      case 0xd:
        return subleaf == 0 ? CpuidResult{.eax = 7, .ebx = 832, .ecx = 832} : CpuidResult{};
      case 0x80000001:
        return {.edx = (1u << 11) | (1u << 20) | (1u << 29)};
      case 0x80000008:
        return {.eax = 40};
      default:
        return {};
    }
  }
  bool read_msr(u32 index, u64& value) override {
    if (index != 0x1b) return false;
    value = 0xfee00900;
    return true;
  }
  bool write_msr(u32 index, u64) override { return index == 0x1b; }
  u64 read_tsc() override { return 0x1234'5678'9abc; }
  u8 read_cr8() override { return cr8; }
  void write_cr8(u8 value) override { cr8 = value; }
  u8 cr8 = 0;
};

class SystemMachine {
 public:
  SystemMachine() : memory_(memory::GuestMemory::create(4 * kMiB).value()) {
    engine_ = Engine::create({.features = ~u64{0}}, *memory_, environment);
    const PhysicalSlot slot{.id = 0, .start = 0, .size = 4 * kMiB, .host = host(0)};
    engine_->set_slots({&slot, 1});
    tables();
  }

  u8* host(u64 address) { return memory_->find(memory::GuestPhysical{address}, 1); }
  Cpu& cpu() { return engine_->cpu(); }
  Engine& engine() { return *engine_; }
  template <class T>
  void put(u64 address, T value) {
    base::store<T>(host(address), value);
  }
  template <class T>
  T get(u64 address) {
    return base::load<T>(host(address));
  }
  void code(u64 address, std::initializer_list<u8> bytes) {
    for (u8 byte : bytes) put<u8>(address++, byte);
    put<u8>(address, 0xf4);
  }
  void descriptor(u16 selector, u64 raw) { put<u64>(kGdt + (selector & 0xfff8), raw); }
  // A gate for vector v to its halting handler.
  void gate(u32 v, u8 type_dpl_p, u16 selector, u32 ist = 0) {
    const u64 target = kHandlers + v * 16;
    const u64 raw = (target & 0xffff) | (u64{selector} << 16) | (u64{ist} << 32) |
                    (u64{type_dpl_p} << 40) | ((target & 0xffff0000) << 32);
    if (long_) {
      put<u64>(kIdt + v * 16, raw);
      put<u64>(kIdt + v * 16 + 8, 0);
    } else {
      put<u64>(kIdt + v * 8, raw);
    }
  }

  void long_mode() {
    long_ = true;
    Cpu& c = cpu();
    c.cr0 = 0x80050033;
    c.cr4 = 0x620;
    c.cr3 = kPages;
    c.efer = kEferSce | kEferLme | kEferLma | kEferNxe;
    descriptor_registers(0x68);
    for (u32 v = 0; v < 256; ++v) gate(v, 0x8e, kCode64);
    load_flat(kCode64, kDataSel, 0, true);
    start(kCode, kKernelStack);
  }
  void protected_mode() {
    long_ = false;
    Cpu& c = cpu();
    c.cr0 = 0x33;
    c.cr4 = 0x600;
    c.efer = 0;
    descriptor_registers(0x68);
    for (u32 v = 0; v < 256; ++v) gate(v, 0x8e, kCode32);
    load_flat(kCode32, kDataSel, 0, false);
    start(kCode, kKernelStack);
  }
  void real_mode() {
    long_ = false;
    reset(cpu());
    for (u32 v = 0; v < 256; ++v)
      put<u32>(v * 4, static_cast<u32>((kHandlers + v * 16) >> 4 << 16));
    cpu().idtr = {.base = 0, .limit = 0x3ff};
    for (u8 i = 0; i < 6; ++i) load_segment(cpu(), i, 0);
    load_real_segment(cpu(), 1, kCode >> 4);
    start(0, 0x7000);
  }
  // To ring 3: 64-bit, or 32-bit compatibility/protected code.
  void user(bool wide) {
    load_flat(wide ? kUserCode64 : kUserCode32, kUserData, 3, wide);
    start(kUserCode, kUserStack);
  }

  // Back to power-up, with the tables as they were; whatever was decoded is dropped.
  void rewind() {
    engine_->invalidate_code(0, 4 * kMiB);
    reset(cpu());
    tables();
  }
  // Runs until HLT or shutdown. True: halted.
  bool run() {
    engine_->state_changed();
    stop = engine_->run(10000);
    return stop == Stop::kHalt;
  }
  // Runs code at RIP's place: the vector whose handler halted, -1 when the code itself did, -2 for
  // anything else.
  int vector(std::initializer_list<u8> bytes) {
    const Cpu& c = cpu();
    code(c.rip + (c.protected_mode() ? 0 : c.segments[1].base), bytes);
    return vector();
  }
  int vector() {
    if (!run()) return -2;
    const u64 at = cpu().rip + (cpu().protected_mode() ? 0 : cpu().segments[1].base) - 1;
    if (at < kHandlers || at >= kHandlers + 256 * 16) return -1;
    return static_cast<int>((at - kHandlers) / 16);
  }
  // The n-th 8-byte (long mode), 4-byte or 2-byte value on the stack.
  u64 pushed(u32 n) {
    const u64 sp = cpu().gpr[kRsp];
    if (long_) return get<u64>(sp + n * 8);
    return cpu().protected_mode() ? get<u32>(sp + n * 4) : get<u16>(sp + n * 2);
  }

  TestEnvironment environment;
  Stop stop = Stop::kNone;

 private:
  void tables() {
    descriptor(kCode64, 0x00af9b000000ffff);
    descriptor(kDataSel, 0x00cf93000000ffff);
    descriptor(kUserCode32, 0x00cffb000000ffff);
    descriptor(kUserData, 0x00cff3000000ffff);
    descriptor(kUserCode64, 0x00affb000000ffff);
    descriptor(kTssSel, 0x0000890030000067);
    descriptor(kTssSel + 8, 0);
    descriptor(kCode32, 0x00cf9b000000ffff);
    descriptor(kAbsent, 0x00cf13000000ffff);
    descriptor(kReadOnly, 0x00cf91000000ffff);
    descriptor(kConforming, 0x00cf9f000000ffff);
    descriptor(kLdtSel, 0x0000820010000fff);
    descriptor(kLdtSel + 8, 0);
    descriptor(kCode16, 0x000f9b000000ffff);
    descriptor(kData16, 0x000093000000ffff);
    descriptor(kExecuteOnly, 0x00cf99000000ffff);
    for (u32 v = 0; v < 256; ++v) put<u8>(kHandlers + v * 16, 0xf4);
    // 4 MiB identity, user-accessible, in 2 MiB pages.
    put<u64>(kPages, (kPages + 0x1000) | 7);
    put<u64>(kPages + 0x1000, (kPages + 0x2000) | 7);
    put<u64>(kPages + 0x2000, 0x000087);
    put<u64>(kPages + 0x2008, 0x200087);
  }
  void descriptor_registers(u32 tss_limit) {
    Cpu& c = cpu();
    c.gdtr = {.base = kGdt, .limit = 0xff};
    c.idtr = {.base = kIdt, .limit = 0xfff};
    c.tr = {.base = kTss, .limit = tss_limit - 1, .selector = kTssSel, .access = 0x8b};
    if (long_) {
      put<u64>(kTss + 4, kKernelStack);
      put<u64>(kTss + 36, kIstStack);
    } else {
      put<u32>(kTss + 4, kKernelStack);
      put<u32>(kTss + 8, kDataSel);
    }
    put<u16>(kTss + 102, 0x68);  // no I/O bitmap
    c.ldtr = null_segment(0, 0);
  }
  void load_flat(u16 code_selector, u16 data_selector, u8 ring, bool wide) {
    Cpu& c = cpu();
    set_segment(c, 1, flat_code(code_selector, ring, wide));
    for (u8 i : {0, 2, 3, 4, 5}) set_segment(c, i, flat_stack(data_selector, ring));
    set_cpl(c, ring);
  }
  void start(u64 rip, u64 rsp) {
    cpu().rip = rip;
    cpu().gpr[kRsp] = rsp;
  }

  std::unique_ptr<memory::GuestMemory> memory_;
  std::unique_ptr<Engine> engine_;
  bool long_ = false;
};

}  // namespace smol::cpu::testing

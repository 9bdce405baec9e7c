// The states differ in a handful of fields, so each builder starts from the reset state and says
// what it changes. Segment types are those a loaded segment has: accessed code or data, busy TSS;
// VMX and SVM refuse others.
#include "arch/x86_64/cpu_setup.h"

#include <array>

#include "arch/x86_64/memory_map.h"

namespace smol::arch::x86_64 {

using hypervisor::CpuState;
using hypervisor::RunState;
using hypervisor::Segment;

namespace {

constexpr u8 kTypeData = 0x3;     // read/write, accessed
constexpr u8 kTypeCode = 0xb;     // execute/read, accessed
constexpr u8 kTypeBusyTss = 0xb;  // system segment: 32-bit or 64-bit busy TSS
constexpr u8 kTypeLdt = 0x2;

Segment real_segment(u16 selector, u64 base, u8 type) {
  return {.base = base,
          .limit = 0xffff,
          .selector = selector,
          .type = type,
          .present = true,
          .non_system = true};
}

Segment flat_segment(u16 selector, u8 type, bool wide_code) {
  return {.base = 0,
          .limit = 0xffffffff,
          .selector = selector,
          .type = type,
          .present = true,
          .default_big = !wide_code,
          .non_system = true,
          .long_mode = wide_code,
          .granularity = true};
}

Segment task_segment(u16 selector) {
  return {.base = 0, .limit = 0x67, .selector = selector, .type = kTypeBusyTss, .present = true};
}

void set_data_segments(CpuState& state, const Segment& data) {
  state.segments.ds = state.segments.es = state.segments.ss = data;
  state.segments.fs = state.segments.gs = data;
}

Result<> write_boot_gdt(memory::GuestMemory& memory) {
  // Null, unused, 64-bit code (0x10), data (0x18), TSS (0x20, two slots); accessed and busy bits
  // set as loaded.
  constexpr std::array<u64, 6> kGdt = {
      0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00008b0000000067, 0};
  return memory.store(kBootGdt, kGdt);
}

Result<> write_identity_map(memory::GuestMemory& memory) {
  constexpr u64 kPresentWritable = 0x3, kLarge = 0x80;
  TRY_ASSIGN(const ByteSpan tables, memory.slice(kPageTables, kPageTablesSize));
  const GuestPhysical pdpt = kPageTables + kPageSize;
  const GuestPhysical directories = pdpt + kPageSize;
  base::store<u64>(tables.data(), pdpt.value | kPresentWritable);
  for (u64 i = 0; i < 4; ++i) {
    base::store<u64>(tables.data() + kPageSize + i * 8,
                     (directories.value + i * kPageSize) | kPresentWritable);
  }
  for (u64 i = 0; i < 4 * 512; ++i) {
    base::store<u64>(tables.data() + 2 * kPageSize + i * 8,
                     (i * 2 * kMiB) | kPresentWritable | kLarge);
  }
  memory.note_written(kPageTables, kPageTablesSize);
  return {};
}

}  // namespace

CpuState reset_state(u32 processor_signature) {
  CpuState state;
  state.general.gpr[2] = processor_signature;
  state.general.rip = 0xfff0;
  state.segments.cs = real_segment(0xf000, 0xffff0000, kTypeCode);
  set_data_segments(state, real_segment(0, 0, kTypeData));
  state.segments.ldt = {.limit = 0xffff, .type = kTypeLdt, .present = true};
  state.segments.tr = {.limit = 0xffff, .type = kTypeBusyTss, .present = true};
  state.segments.gdt = state.segments.idt = {.base = 0, .limit = 0xffff};
  // x87 control word and MXCSR after reset, in the XSAVE area's legacy part.
  base::store<u16>(state.xsave.bytes.data(), 0x37f);
  base::store<u32>(state.xsave.bytes.data() + 24, 0x1f80);
  return state;
}

CpuState real_mode_state(u16 segment, u16 offset) {
  CpuState state = reset_state();
  state.segments.cs = real_segment(segment, u64{segment} * 16, kTypeCode);
  state.general.rip = offset;
  return state;
}

CpuState flat_protected_state(u32 entry) {
  CpuState state = reset_state(0);
  state.general.rip = entry;
  state.segments.cs = flat_segment(0x10, kTypeCode, false);
  set_data_segments(state, flat_segment(0x18, kTypeData, false));
  state.segments.tr = task_segment(0x20);
  state.segments.gdt = state.segments.idt = {.base = 0, .limit = 0};
  state.control.cr0 = kCr0Pe | kCr0Et;
  return state;
}

Result<CpuState> long_mode_state(memory::GuestMemory& memory, u64 entry) {
  TRY(write_boot_gdt(memory));
  TRY(write_identity_map(memory));
  CpuState state = reset_state(0);
  state.general.rip = entry;
  state.segments.cs = flat_segment(0x10, kTypeCode, true);
  set_data_segments(state, flat_segment(0x18, kTypeData, false));
  state.segments.tr = task_segment(0x20);
  state.segments.gdt = {.base = kBootGdt.value, .limit = 6 * 8 - 1};
  state.segments.idt = {.base = 0, .limit = 0};
  state.control.cr0 = kCr0Pe | kCr0Et | kCr0Pg;
  state.control.cr3 = kPageTables.value;
  state.control.cr4 = kCr4Pae;
  state.control.efer = kEferLme | kEferLma;
  return state;
}

CpuState application_processor_state(u32 processor_signature) {
  CpuState state = reset_state(processor_signature);
  state.control.apic_base = 0xfee00800;  // enabled, not the bootstrap processor
  state.run_state = RunState::kWaitForSipi;
  return state;
}

}  // namespace smol::arch::x86_64

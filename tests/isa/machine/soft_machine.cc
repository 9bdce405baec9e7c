#include "machine/soft_machine.h"

#include "base/check.h"
#include "cpu/decoder/instruction.h"
#include "cpu/interp/fpu_state.h"
#include "cpu/state/flags.h"

namespace smol::isa {
namespace {

using cpu::Cpu;

constexpr u64 kRamSize = 2 * kMiB;
// Guest-physical places; the first 2 MiB are also mapped for ring 0, at kKernel.
constexpr u64 kPml4 = 0x1000, kPdpt = 0x2000, kDirectory = 0x3000, kLowTable = 0x4000,
              kCodeTable = 0x5000, kDataTable = 0x6000;
constexpr u64 kIdt = 0x7000, kGdt = 0x8000, kTss = 0x8800, kStubs = 0x9000, kStackTop = 0xb000;
constexpr u64 kCodePhysical = 0x10000, kDataPhysical = 0x20000;
// In the upper half, where a host's kernel is too, so that user addresses are as empty as there.
constexpr u64 kKernel = 0xffff800000000000;
constexpr u64 kKernelPdpt = 0xb000, kKernelDirectory = 0xc000;
constexpr u64 kStubSize = 16;
constexpr u16 kKernelCs = 0x08, kUserSs = 0x2b, kTssSelector = 0x40;

constexpr u64 kPresent = 1, kWritable = 2, kUser = 4, kAccessed = 0x20, kDirty = 0x40,
              kNoExecute = u64{1} << 63;

struct NullEnvironment : cpu::Environment {
  cpu::CpuidResult cpuid(u32, u32, u64) override { return {}; }
  bool read_msr(u32, u64&) override { return false; }
  bool write_msr(u32, u64) override { return false; }
  u64 read_tsc() override { return 0; }
  u8 read_cr8() override { return 0; }
  void write_cr8(u8) override {}
};

void put(u8* ram, u64 address, u64 value) { base::store<u64>(ram + address, value); }

void put_gate(u8* ram, unsigned vector) {
  const u64 target = kKernel + kStubs + vector * kStubSize;
  const u64 attributes = 0xee00;  // present, DPL 3, interrupt gate
  put(ram, kIdt + 16 * vector,
      (target & 0xffff) | (u64{kKernelCs} << 16) | (attributes << 32) | ((target >> 16) << 48));
  put(ram, kIdt + 16 * vector + 8, target >> 32);
}

cpu::SegmentRegister flat_segment(u16 selector, u32 access) {
  return {.base = 0, .limit = 0xffffffff, .selector = selector, .access = access};
}

}  // namespace

SoftMachine::SoftMachine() : environment_(std::make_unique<NullEnvironment>()) {}
SoftMachine::~SoftMachine() = default;

std::unique_ptr<SoftMachine> SoftMachine::create(u64 features) {
  std::unique_ptr<SoftMachine> machine(new SoftMachine);
  auto memory = memory::GuestMemory::create(kRamSize, memory::Backing::kPrivate);
  CHECK(memory.has_value());
  machine->memory_ = std::move(*memory);
  machine->ram_ = machine->memory_->find(memory::GuestPhysical(0), kRamSize);
  CHECK(machine->ram_ != nullptr);
  machine->build_tables();
  machine->engine_ =
      cpu::Engine::create({.features = features}, *machine->memory_, *machine->environment_);
  const cpu::PhysicalSlot slot{.id = 0, .start = 0, .size = kRamSize, .host = machine->ram_};
  machine->engine_->set_slots({&slot, 1});
  return machine;
}

void SoftMachine::build_tables() {
  const u64 table = kPresent | kWritable | kUser | kAccessed;
  put(ram_, kPml4, kPdpt | table);
  put(ram_, kPdpt, kDirectory | table);
  put(ram_, kPml4 + 8 * 256, kKernelPdpt | table);
  put(ram_, kKernelPdpt, kKernelDirectory | table);
  put(ram_, kKernelDirectory, kLowTable | table);
  put(ram_, kDirectory + 8 * (kCodePage >> 21), kCodeTable | table);
  put(ram_, kDirectory + 8 * (kData >> 21), kDataTable | table);
  for (u64 page = 0; page < 512; ++page)
    put(ram_, kLowTable + 8 * page, (page << 12) | kPresent | kWritable | kAccessed | kDirty);
  put(ram_, kCodeTable, kCodePhysical | kPresent | kUser | kAccessed);
  for (u64 page = 0; page < kDataPages; ++page) {
    const u64 writable = page < kWritablePages ? kWritable | kDirty : 0;
    put(ram_, kDataTable + 8 * page,
        (kDataPhysical + page * kPageSize) | kPresent | kUser | kAccessed | writable | kNoExecute);
  }
  for (unsigned vector = 0; vector < 256; ++vector) {
    put_gate(ram_, vector);
    static constexpr u8 kStub[] = {0xf4, 0xeb, 0xfd};  // hlt; jmp to it
    std::memcpy(ram_ + kStubs + vector * kStubSize, kStub, sizeof(kStub));
  }
  put(ram_, kGdt + kKernelCs, 0x00af9b000000ffff);
  put(ram_, kGdt + 0x10, 0x00cf93000000ffff);
  put(ram_, kGdt + (kUserSs & ~7), 0x00cff3000000ffff);
  put(ram_, kGdt + (kCode64 & ~7), 0x00affb000000ffff);
  put(ram_, kGdt + (kCode32 & ~7), 0x00cffb000000ffff);
  put(ram_, kTss + 4, kKernel + kStackTop);  // RSP0
  base::store<u16>(ram_ + kTss + 102, 104);  // no I/O bitmap within the limit
}

u8* SoftMachine::data() { return ram_ + kDataPhysical; }

void SoftMachine::set_code(const u8* code, u32 size, u32 offset) {
  std::memset(ram_ + kCodePhysical, kFiller, kPageSize);
  std::memcpy(ram_ + kCodePhysical + offset, code, size);
  engine_->invalidate_code(kCodePhysical, kPageSize);
}

void SoftMachine::load(const UserState& state) {
  Cpu& c = engine_->cpu();
  std::memcpy(c.gpr, state.gpr, sizeof(state.gpr));
  c.rip = state.rip;
  cpu::write_rflags(c, state.rflags);
  c.cr0 = cpu::kCr0Pe | cpu::kCr0Mp | cpu::kCr0Et | cpu::kCr0Ne | cpu::kCr0Wp | cpu::kCr0Am |
          cpu::kCr0Pg;
  c.cr3 = kPml4;
  c.cr4 = cpu::kCr4Pae | cpu::kCr4Osfxsr | cpu::kCr4Osxmmexcpt | cpu::kCr4Pge;
  c.efer = cpu::kEferSce | cpu::kEferLme | cpu::kEferLma | cpu::kEferNxe;
  c.cr2 = 0;
  const cpu::SegmentRegister null{
      .base = 0, .limit = 0, .selector = 0, .access = cpu::kAccessUnusable};
  for (auto& segment : c.segments) segment = null;
  c.segments[cpu::kCs] =
      state.cs == kCode32 ? flat_segment(kCode32, 0xc0fb) : flat_segment(kCode64, 0xa0fb);
  for (const u8 data : {cpu::kSs, cpu::kDs, cpu::kEs})
    c.segments[data] = flat_segment(kUserSs, 0xc0f3);
  c.segments[cpu::kFs].base = kFsBase;
  c.segments[cpu::kGs].base = kGsBase;
  c.tr = {.base = kKernel + kTss, .limit = 0x67, .selector = kTssSelector, .access = 0x8b};
  c.gdtr = {.base = kKernel + kGdt, .limit = 0x7f};
  c.idtr = {.base = kKernel + kIdt, .limit = 0xfff};
  c.cpl = 3;
  c.halted = false;
  c.interrupt_shadow = false;
  c.mxcsr = base::load<u32>(state.fx + 24);
  cpu::load_x87_image(c, state.fx, true);
  cpu::load_xmm_image(c, state.fx, 16);
  engine_->state_changed();
}

void SoftMachine::read_outcome(Outcome& outcome) {
  const Cpu& c = engine_->cpu();
  std::memcpy(outcome.state.gpr, c.gpr, sizeof(outcome.state.gpr));
  cpu::save_x87_image(c, outcome.state.fx, true);
  cpu::save_xmm_image(c, outcome.state.fx, 16);
  base::store<u32>(outcome.state.fx + 24, c.mxcsr);
  outcome.address = c.cr2;
  const u64 stub = c.rip - kKernel - kStubs;
  if (stub >= 256 * kStubSize) return;  // halted where nobody halts: not an end
  outcome.ended = true;
  outcome.vector = static_cast<u8>(stub / kStubSize);
  u64 frame = c.gpr[cpu::kRsp] - kKernel;
  if (kStackTop - frame == 48) {
    outcome.error_code = base::load<u32>(ram_ + frame);
    frame += 8;
  }
  if (kStackTop - frame != 40) {
    outcome.ended = false;
    return;
  }
  outcome.state.rip = base::load<u64>(ram_ + frame);
  outcome.state.rflags = base::load<u64>(ram_ + frame + 16);
  outcome.state.gpr[cpu::kRsp] = base::load<u64>(ram_ + frame + 24);
}

Outcome SoftMachine::run(const UserState& state, u64 limit) {
  load(state);
  Outcome outcome;
  const u64 start = engine_->cpu().retired;
  for (;;) {
    const u64 done = engine_->cpu().retired - start;
    if (done >= limit) break;
    const cpu::Stop stop = engine_->run(limit - done);
    if (stop == cpu::Stop::kAttention) continue;
    if (stop == cpu::Stop::kHalt) read_outcome(outcome);
    break;
  }
  return outcome;
}

u64 v2_features() {
  using enum cpu::Feature;
  u64 set = 0;
  for (cpu::Feature f :
       {kBaseline, kSse3, kSsse3, kSse41, kSse42, kPopcnt, kCmpxchg16b, kLahf64, kClflush})
    set |= cpu::feature_bit(f);
  return set;
}

}  // namespace smol::isa

#include "machine.h"

#include <chrono>
#include <map>

#include "base/check.h"
#include "hypervisor/kvm/kvm.h"
#include "hypervisor/soft/soft.h"

namespace smol::conformance {
namespace {

// Far above what any scenario takes, also under an emulated host's KVM.
constexpr auto kPatience = std::chrono::seconds(120);

constexpr u64 kGdtEntries[] = {
    0,
    0x00209b0000000000,  // 0x08: code, 64-bit
    0x00cf93000000ffff,  // 0x10: data, flat
    0x00cf9b000000ffff,  // 0x18: code, 32-bit, flat
    0x00009b000000ffff,  // 0x20: code, 16-bit
    0x000093000000ffff,  // 0x28: data, 16-bit
    0x0020fb0000000000,  // 0x30: code, 64-bit, DPL 3
    0x00cff3000000ffff,  // 0x38: data, flat, DPL 3
    0x00cf13000000ffff,  // 0x40: data, not present
    0x00008b000000a067,  // 0x48: 64-bit TSS at kTss, busy; its upper half is the next entry
    0,
};

// Vectors for which the processor pushes an error code (SDM vol. 3, table 6-1).
bool pushes_error(u32 vector) {
  return vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21;
}

constexpr u8 kTailCode[] = {
    0xe6, kFaultPort,              // out kFaultPort, al
    0x48, 0x83,       0xc4, 0x10,  // add rsp, 16
    0x48, 0xcf,                    // iretq
};

constexpr u8 kPicTailCode[] = {
    0xe6, kFaultPort,              // out kFaultPort, al
    0x48, 0x83,       0xc4, 0x10,  // add rsp, 16
    0x50,                          // push rax
    0xb0, 0x20,                    // mov al, 0x20: a non-specific end of interrupt
    0xe6, 0xa0,                    // out 0xa0, al
    0xe6, 0x20,                    // out 0x20, al
    0x58,                          // pop rax
    0x48, 0xcf,                    // iretq
};
constexpr u8 kApicTailCode[] = {
    0xe6, kFaultPort,                          // out kFaultPort, al
    0x48, 0x83,       0xc4, 0x10,              // add rsp, 16
    0x50,                                      // push rax
    0xb8, 0xb0,       0x00, 0xe0, 0xfe,        // mov eax, 0xfee000b0: EOI
    0xc7, 0x00,       0x00, 0x00, 0x00, 0x00,  // mov dword ptr [rax], 0
    0x58,                                      // pop rax
    0x48, 0xcf,                                // iretq
};
constexpr u64 kPicTail = kStubTail + 0x100, kApicTail = kStubTail + 0x200;

Segment segment(u16 selector, u8 type, bool long_mode, bool big) {
  Segment s;
  s.selector = selector;
  s.limit = 0xffffffff;
  s.type = type;
  s.present = s.non_system = s.granularity = true;
  s.long_mode = long_mode;
  s.default_big = big;
  s.dpl = selector & 3;
  return s;
}

Segment real_segment(u8 type) {
  Segment s;
  s.limit = 0xffff;
  s.type = type;
  s.present = s.non_system = true;
  return s;
}

void set_data_segments(CpuState& state, const Segment& data) {
  auto& s = state.segments;
  s.ds = s.es = s.fs = s.gs = s.ss = data;
}

// The hidden parts that every mode needs: a usable TR, an unusable LDTR.
void set_system_segments(CpuState& state) {
  Segment& tr = state.segments.tr;
  tr = {};
  tr.selector = kTask;
  tr.base = kTss;
  tr.limit = 0x67;
  tr.type = 0xb;
  tr.present = true;
  state.segments.ldt = {};
  state.segments.ldt.type = 2;
  state.segments.ldt.unusable = true;
  state.segments.gdt = {kGdt, sizeof(kGdtEntries) - 1};
}

void set_general(CpuState& state, u64 rip) {
  state.general = {};
  state.general.rip = rip;
  state.general.gpr[kRsp] = kStackTop;
  state.events = {};
  state.msrs.clear();
  state.lapic_valid = false;
  state.run_state = RunState::kRunnable;
}

}  // namespace

std::vector<std::string>& accelerators() {
  static std::vector<std::string> list;
  return list;
}

Hypervisor& hypervisor_of(const std::string& accelerator) {
  static std::map<std::string, std::unique_ptr<Hypervisor>> opened;
  auto& slot = opened[accelerator];
  if (!slot) {
    auto created = accelerator == "kvm" ? kvm::create() : soft::create();
    if (!created) fmt::print(stderr, "{}: {}\n", accelerator, created.error().chain());
    CHECK(created.has_value());
    slot = std::move(*created);
  }
  return *slot;
}

CpuState real_mode(CpuState from, u64 rip) {
  set_general(from, rip);
  set_data_segments(from, real_segment(3));
  from.segments.cs = real_segment(0xb);
  set_system_segments(from);
  from.segments.idt = {0, 0x3ff};
  from.control.cr0 = 0x10;
  from.control.cr3 = from.control.cr4 = 0;
  from.control.efer = 0;
  return from;
}

CpuState protected_mode(CpuState from, u64 rip) {
  set_general(from, rip);
  set_data_segments(from, segment(kData0, 3, false, true));
  from.segments.cs = segment(kCode32, 0xb, false, true);
  set_system_segments(from);
  from.segments.idt = {kIdt, 0x7ff};
  from.control.cr0 = 0x31;  // NE, ET, PE
  from.control.cr3 = from.control.cr4 = 0;
  from.control.efer = 0;
  return from;
}

CpuState long_mode(CpuState from, u64 rip) {
  set_general(from, rip);
  set_data_segments(from, segment(kData0, 3, false, true));
  from.segments.cs = segment(kCode64, 0xb, true, false);
  set_system_segments(from);
  from.segments.idt = {kIdt, 0xfff};
  from.control.cr0 = 0x80010033;  // PG, WP, NE, ET, MP, PE
  from.control.cr3 = kPml4;
  from.control.cr4 = 0x620;   // OSXMMEXCPT, OSFXSR, PAE
  from.control.efer = 0xd00;  // NXE, LMA, LME
  return from;
}

CpuState user_mode(CpuState from, u64 rip) {
  from = long_mode(std::move(from), rip);
  set_data_segments(from, segment(kUserData, 3, false, true));
  from.segments.cs = segment(kUserCode64, 0xb, true, false);
  from.general.rflags |= 0x3000;
  return from;
}

// --- Machine
// ----------------------------------------------------------------------------------------------------

Machine::Machine(const std::string& accelerator, const Options& options) {
  auto memory = memory::GuestMemory::create(kRamSize);
  CHECK(memory.has_value());
  memory_ = std::move(*memory);
  VmConfig config;
  config.model = options.model;
  config.irqchip = options.irqchip;
  config.cpu_count = options.cpu_count;
  auto vm = hypervisor_of(accelerator).create_vm(config, *memory_);
  if (!vm) fmt::print(stderr, "creating a VM: {}\n", vm.error().chain());
  CHECK(vm.has_value());
  vm_ = std::move(*vm);
  MemorySlot slot;
  slot.size = kRamSize;
  slot.host = ram(0);
  slot.log_dirty = options.log_dirty;
  write_tables(options.irqchip == Irqchip::kFull);
  const auto set = vm_->set_memory_slot(slot);
  EXPECT_TRUE(set) << set.error().chain();
  for (u32 id = 0; id < options.cpu_count; id++) {
    auto vcpu = vm_->create_vcpu(id);
    if (!vcpu) fmt::print(stderr, "creating vCPU {}: {}\n", id, vcpu.error().chain());
    CHECK(vcpu.has_value());
    vcpus_.push_back(std::move(*vcpu));
  }
  reset_ = get_state();
  watchdog_ = std::thread([this] { watch(); });
}

Machine::~Machine() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  watchdog_.join();
  vcpus_.clear();
}

void Machine::watch() {
  std::unique_lock lock(mutex_);
  auto wait = std::chrono::duration_cast<std::chrono::milliseconds>(kPatience);
  while (!wake_.wait_for(lock, wait, [this] { return stop_; })) {
    hung_ = true;
    for (auto& vcpu : vcpus_) vcpu->kick();
    wait = std::chrono::milliseconds(100);
  }
}

bool Machine::hung() {
  std::lock_guard lock(mutex_);
  return hung_;
}

void Machine::load(u64 address, ConstByteSpan bytes) {
  const auto written = memory_->write(memory::GuestPhysical(address), bytes);
  EXPECT_TRUE(written) << written.error().chain();
}

void Machine::write_tables(bool acknowledge) {
  for (std::size_t i = 0; i < std::size(kGdtEntries); i++) poke(kGdt + 8 * i, kGdtEntries[i]);
  poke(kTss + 4, kRing0Stack);     // RSP0
  poke(kTss + 0x24, kRing0Stack);  // IST1
  poke(kTss + 0x66, u16{0x68});    // no I/O bitmap
  for (u32 vector = 0; vector < 256; vector++) {
    const u64 stub = kStubs + 16 * vector;
    u64 at = stub;
    if (!pushes_error(vector)) {
      poke(at, u16{0x006a});  // push 0
      at += 2;
    }
    poke(at, u8{0x68});  // push vector
    poke(at + 1, vector);
    poke(at + 5, u8{0xe9});  // jmp tail
    u64 tail = kStubTail;
    if (acknowledge && vector >= 0x20 && vector < 0x30) tail = kPicTail;
    if (acknowledge && vector >= 0x30 && vector < 0x70) tail = kApicTail;
    poke(at + 6, static_cast<u32>(tail - (at + 10)));
    // SDM vol. 3, figure 6-8: a present interrupt gate; DPL 3 for INT3, INTO and INT 0x80.
    const u64 dpl = vector == 3 || vector == 4 || vector == 0x80 ? 3 : 0;
    poke(kIdt + 16 * vector,
         (stub & 0xffff) | u64{kCode64} << 16 | (0x8e00 | dpl << 13) << 32 | (stub >> 16) << 48);
    poke(kIdt + 16 * vector + 8, u64{0});
  }
  load(kStubTail, kTailCode);
  load(kPicTail, kPicTailCode);
  load(kApicTail, kApicTailCode);
  constexpr u64 kTable = 7, kLarge = 0x87;  // present, writable, user; page size
  poke(kPml4, (kPml4 + 0x1000) | kTable);
  for (u64 i = 0; i < 4; i++) poke(kPml4 + 0x1000 + 8 * i, (kPml4 + 0x2000 + 0x1000 * i) | kTable);
  for (u64 i = 0; i < 2048; i++) poke(kPml4 + 0x2000 + 8 * i, i * 2 * kMiB | kLarge);
}

CpuState Machine::get_state(u32 id) {
  auto state = vcpu(id).get_state();
  EXPECT_TRUE(state) << state.error().chain();
  return state ? std::move(*state) : CpuState{};
}

void Machine::set_state(const CpuState& state, u32 id) {
  const auto set = vcpu(id).set_state(state);
  EXPECT_TRUE(set) << set.error().chain();
}

void Machine::start_real(ConstByteSpan code) {
  load(kCode, code);
  set_state(real_mode(reset_, kCode));
}
void Machine::start_protected(ConstByteSpan code) {
  load(kCode, code);
  set_state(protected_mode(reset_, kCode));
}
void Machine::start_long(ConstByteSpan code) {
  load(kCode, code);
  set_state(long_mode(reset_, kCode));
}
void Machine::start_user(ConstByteSpan code) {
  load(kCode, code);
  set_state(user_mode(reset_, kCode));
}

// --- Running
// ----------------------------------------------------------------------------------------------------

std::string Machine::describe(const Exit& exit) {
  std::string text = fmt::format("exit '{}'", exit_name(exit.index()));
  if (const auto* io = std::get_if<ExitPortIo>(&exit))
    text += fmt::format(": {} port {:#x}, {} of {} bytes, first byte {:#x}",
                        io->write ? "write to" : "read of", io->port, io->data.size() / io->size,
                        io->size, io->data[0]);
  if (const auto* mmio = std::get_if<ExitMmio>(&exit))
    text += fmt::format(": {} {:#x}, {} bytes", mmio->write ? "write to" : "read of",
                        mmio->address.value, mmio->data.size());
  if (const auto* failed = std::get_if<ExitFailed>(&exit)) text += ": " + failed->reason;
  return text;
}

Exit Machine::run(u32 id) {
  auto exit = vcpu(id).run();
  if (!exit) {
    ADD_FAILURE() << exit.error().chain();
    return ExitFailed{exit.error().chain()};
  }
  if (std::holds_alternative<ExitInterrupted>(*exit) && hung()) {
    const CpuState state = get_state(id);
    ADD_FAILURE() << fmt::format("the guest does not come back: RIP {:#x}, RFLAGS {:#x}",
                                 state.general.rip, state.general.rflags);
  }
  return *exit;
}

std::optional<u32> Machine::out_of(const Exit& exit, u16 port) {
  const auto* io = std::get_if<ExitPortIo>(&exit);
  if (io == nullptr || !io->write || io->port != port) {
    ADD_FAILURE() << fmt::format("not a write to port {:#x} but {}", port, describe(exit));
    return std::nullopt;
  }
  u32 value = 0;
  std::memcpy(&value, io->data.data(), std::min<std::size_t>(io->data.size(), sizeof(value)));
  return value;
}

u32 Machine::run_to_out(u16 port, u32 id) { return out_of(run(id), port).value_or(~u32{0}); }

Fault Machine::run_to_fault(u32 id) { return fault_of(run(id), id); }

Fault Machine::fault_of(const Exit& exit, u32 id) {
  if (!out_of(exit, kFaultPort)) return {};
  const CpuState state = get_state(id);
  const u64 frame = state.general.gpr[kRsp];
  if (memory_->find(memory::GuestPhysical(frame), 56) == nullptr) {
    ADD_FAILURE() << fmt::format("a stack at {:#x}", frame);
    return {};
  }
  return {.vector = peek<u64>(frame),
          .error = peek<u64>(frame + 8),
          .rip = peek<u64>(frame + 16),
          .cs = peek<u64>(frame + 24),
          .rflags = peek<u64>(frame + 32),
          .rsp = peek<u64>(frame + 40),
          .ss = peek<u64>(frame + 48),
          .cr2 = state.control.cr2};
}

}  // namespace smol::conformance

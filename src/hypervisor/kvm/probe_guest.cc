#include "hypervisor/kvm/probe_guest.h"

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

namespace smol::hypervisor::kvm {
namespace {

// Guest-physical layout; linear addresses are the same.
constexpr u64 kMemorySize = 64 * kKiB;
constexpr u64 kPml4 = 0x1000, kPdpt = 0x2000, kPageDirectory = 0x3000;
constexpr u64 kGdt = 0x4000, kIdt = 0x5000;
constexpr u64 kStackTop = 0x8000;
constexpr u64 kCode = 0x9000, kData = 0xa000;
constexpr u8 kDonePort = 0x10;        // OUT there ends a test; AL = 1: as it should be
constexpr u64 kLoopTurns = 100'000;   // for each millisecond that may be used
constexpr u64 kLoopInstructions = 5;  // a turn

constexpr u8 kLoop[] = {
    0x48, 0x8b,      0x06,  // top: mov rax, [rsi]
    0x48, 0x01,      0xc8,  //      add rax, rcx
    0x48, 0x89,      0x06,  //      mov [rsi], rax
    0x48, 0xff,      0xc9,  //      dec rcx
    0x75, 0xf2,             //      jnz top
    0xe6, kDonePort,        //      out kDonePort, al
};
constexpr u8 kInt3[] = {
    0x31, 0xdb,       // xor ebx, ebx
    0xcc,             // int3
    0x89, 0xd8,       // mov eax, ebx
    0xe6, kDonePort,  // out kDonePort, al
};
constexpr u8 kBreakpointHandler[] = {
    0xff, 0xc3,  // inc ebx
    0x48, 0xcf,  // iretq
};
constexpr u8 kCmpxchg16b[] = {
    0x31, 0xc0,                         // xor eax, eax
    0x31, 0xd2,                         // xor edx, edx
    0xbb, 0x05,      0x00, 0x00, 0x00,  // mov ebx, 5
    0xb9, 0x06,      0x00, 0x00, 0x00,  // mov ecx, 6
    0xf0, 0x48,      0x0f, 0xc7, 0x0e,  // lock cmpxchg16b [rsi]
    0x0f, 0x94,      0xc0,              // setz al
    0x22, 0x46,      0x08,              // and al, [rsi+8]: 6 -> 0
    0x3c, 0x00,                         // cmp al, 0
    0x0f, 0x94,      0xc0,              // setz al
    0xe6, kDonePort,                    // out kDonePort, al
};
constexpr u8 kXrstor[] = {
    0xb8, 0x03,      0x00, 0x00, 0x00,  // mov eax, 3
    0x31, 0xd2,                         // xor edx, edx
    0x0f, 0xae,      0x2e,              // xrstor [rsi]
    0xb0, 0x01,                         // mov al, 1
    0xe6, kDonePort,                    // out kDonePort, al
};

struct Program {
  ConstByteSpan code;
  u64 at;
};
// Each program has 64 bytes of the code page.
constexpr u64 kLoopAt = kCode, kInt3At = kCode + 64, kHandlerAt = kCode + 128,
              kCmpxchgAt = kCode + 192, kXrstorAt = kCode + 256;
const Program kPrograms[] = {
    {kLoop, kLoopAt},          {kInt3, kInt3At},     {kBreakpointHandler, kHandlerAt},
    {kCmpxchg16b, kCmpxchgAt}, {kXrstor, kXrstorAt},
};

constexpr u16 kKernelCode = 0x08, kKernelData = 0x10;
constexpr u64 kGdtEntries[] = {
    0,
    0x00209b0000000000,  // 0x08: code, 64-bit, DPL 0
    0x00cf93000000ffff,  // 0x10: data, DPL 0
    0x0020fb0000000000,  // 0x18: code, 64-bit, DPL 3
    0x00cff3000000ffff,  // 0x20: data, DPL 3
};
constexpr u64 kUserCode = 0x18 | 3, kUserData = 0x20 | 3;

constexpr u64 kCr0 = 0x80010033;  // PG, WP, NE, ET, MP, PE
constexpr u64 kCr4 = 0x620;       // PAE, OSFXSR, OSXMMEXCPT
constexpr u64 kCr4Osxsave = 1 << 18;
constexpr u64 kEfer = 0x500;  // LMA, LME
constexpr u64 kIopl3 = 0x3000;

constexpr std::size_t kRcx = 1, kRsp = 4, kRsi = 6;

Segment code_segment(Ring ring) {
  Segment s;
  s.limit = 0xffffffff;
  s.selector = static_cast<u16>(ring == Ring::kUser ? kUserCode : kKernelCode);
  s.type = 0xb;
  s.present = s.non_system = s.long_mode = s.granularity = true;
  s.dpl = static_cast<u8>(ring);
  return s;
}

Segment data_segment(Ring ring) {
  Segment s;
  s.limit = 0xffffffff;
  s.selector = static_cast<u16>(ring == Ring::kUser ? kUserData : kKernelData);
  s.type = 3;
  s.present = s.non_system = s.default_big = s.granularity = true;
  s.dpl = static_cast<u8>(ring);
  return s;
}

// Kicks a vCPU again and again from `milliseconds` on, until it is told to stop.
class Watchdog {
 public:
  Watchdog(Vcpu& vcpu, u32 milliseconds)
      : thread_([this, &vcpu, milliseconds] {
          const auto wait = std::chrono::milliseconds(milliseconds);
          std::unique_lock lock(mutex_);
          while (!wake_.wait_for(lock, wait, [this] { return stop_; })) {
            fired_ = true;
            vcpu.kick();
          }
        }) {}
  // True when it kicked.
  bool stop() {
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
    }
    wake_.notify_one();
    if (thread_.joinable()) thread_.join();
    return fired_;
  }
  ~Watchdog() { stop(); }

 private:
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stop_ = false, fired_ = false;  // guarded by mutex_ until the thread is joined
  std::thread thread_;
};

std::string describe(const Exit& exit) {
  if (const auto* failed = std::get_if<ExitFailed>(&exit)) return failed->reason;
  return fmt::format("exit '{}'", exit_name(exit.index()));
}

}  // namespace

Result<std::unique_ptr<ProbeGuest>> ProbeGuest::create(Hypervisor& hypervisor) {
  std::unique_ptr<ProbeGuest> guest(new ProbeGuest);
  TRY_ASSIGN(guest->memory_, memory::GuestMemory::create(kMemorySize));
  VmConfig config;
  config.irqchip = Irqchip::kNone;
  TRY_ASSIGN(guest->vm_, hypervisor.create_vm(config, *guest->memory_));
  guest->write_tables();
  const memory::Region& ram = guest->memory_->regions().front();
  TRY(guest->vm_->set_memory_slot(
      {.slot = 0, .start = ram.start, .size = ram.size, .host = ram.host}));
  TRY_ASSIGN(guest->vcpu_, guest->vm_->create_vcpu(0));
  TRY_ASSIGN(guest->reset_, guest->vcpu_->get_state());
  guest->reset_.msrs.clear();  // as they are
  return guest;
}

void ProbeGuest::write_tables() {
  u8* ram = memory_->regions().front().host;
  const auto put = [ram](u64 at, u64 value) { base::store(ram + at, value); };
  constexpr u64 kUserWritablePresent = 7, kLargePage = 0x80;
  put(kPml4, kPdpt | kUserWritablePresent);
  put(kPdpt, kPageDirectory | kUserWritablePresent);
  put(kPageDirectory, kUserWritablePresent | kLargePage);
  for (std::size_t i = 0; i < std::size(kGdtEntries); i++) put(kGdt + 8 * i, kGdtEntries[i]);
  // SDM vol. 3, figure 6-8: a present 64-bit interrupt gate of DPL 0. The handler lies below 64
  // KiB.
  constexpr u64 kBreakpoint = 3;
  put(kIdt + 16 * kBreakpoint, (kHandlerAt & 0xffff) | u64{kKernelCode} << 16 | u64{0x8e00} << 32);
  for (const Program& program : kPrograms)
    std::memcpy(ram + program.at, program.code.data(), program.code.size());
}

CpuState ProbeGuest::start_state(u64 rip, Ring ring) const {
  CpuState state = reset_;
  state.general = {};
  state.general.rip = rip;
  state.general.gpr[kRsp] = kStackTop;
  state.general.gpr[kRsi] = kData;
  if (ring == Ring::kUser) state.general.rflags |= kIopl3;
  auto& segments = state.segments;
  segments.cs = code_segment(ring);
  segments.ds = segments.es = segments.fs = segments.gs = segments.ss = data_segment(ring);
  segments.gdt = {kGdt, sizeof(kGdtEntries) - 1};
  segments.idt = {kIdt, 32 * 16 - 1};
  state.control.cr0 = kCr0;
  state.control.cr3 = kPml4;
  state.control.cr4 = kCr4;
  state.control.efer = kEfer;
  state.events = {};
  return state;
}

Result<Exit> ProbeGuest::run_bounded(u32 milliseconds) {
  for (;;) {
    Watchdog watchdog(*vcpu_, milliseconds);
    auto exit = vcpu_->run();
    const bool fired = watchdog.stop();
    // An interruption that the watchdog did not cause is a kick left over from an earlier run.
    if (exit && std::holds_alternative<ExitInterrupted>(*exit) && !fired) continue;
    return exit;
  }
}

Result<> ProbeGuest::start_loop(Ring ring, u64 turns) {
  CpuState state = start_state(kLoopAt, ring);
  state.general.gpr[kRcx] = turns;
  return vcpu_->set_state(state);
}

Result<Exit> ProbeGuest::run_loop(Ring ring, u32 milliseconds) {
  TRY_ASSIGN(const Exit exit, run_bounded(milliseconds));
  if (!std::holds_alternative<ExitInterrupted>(exit) && !std::holds_alternative<ExitPortIo>(exit))
    return fail("a counted loop in ring {} ended with {}", static_cast<int>(ring), describe(exit));
  return exit;
}

Result<> ProbeGuest::warm_up() {
  for (const Ring ring : {Ring::kUser, Ring::kKernel}) {
    TRY(start_loop(ring, 1));
    TRY(run_loop(ring, 50));
  }
  return {};
}

Result<u64> ProbeGuest::loop_speed(Ring ring, u32 milliseconds) {
  const u64 all = kLoopTurns * milliseconds;
  TRY(start_loop(ring, all));
  const auto begin = std::chrono::steady_clock::now();
  TRY_ASSIGN(const Exit exit, run_loop(ring, milliseconds));
  const auto end = std::chrono::steady_clock::now();
  u64 turns = all;
  if (std::holds_alternative<ExitInterrupted>(exit)) {
    TRY_ASSIGN(const CpuState now, vcpu_->get_state());
    turns -= std::min(now.general.gpr[kRcx], turns);
  }
  const auto elapsed = std::chrono::duration_cast<std::chrono::nanoseconds>(end - begin).count();
  return turns * kLoopInstructions * 1'000'000'000 / static_cast<u64>(std::max<i64>(elapsed, 1));
}

Result<> ProbeGuest::attempt(Trial trial) {
  const u64 rip = trial == Trial::kInt3         ? kInt3At
                  : trial == Trial::kCmpxchg16b ? kCmpxchgAt
                                                : kXrstorAt;
  const char* name = trial == Trial::kInt3         ? "int3"
                     : trial == Trial::kCmpxchg16b ? "lock cmpxchg16b"
                                                   : "xrstor";
  CpuState state = start_state(rip, Ring::kKernel);
  if (trial == Trial::kXrstor) state.control.cr4 |= kCr4Osxsave;
  std::memset(memory_->regions().front().host + kData, 0, kPageSize);
  TRY(vcpu_->set_state(state));
  TRY_ASSIGN(const Exit exit, run_bounded(20));
  const auto* io = std::get_if<ExitPortIo>(&exit);
  if (io == nullptr) return fail("{} in ring 0 ends with {}", name, describe(exit));
  if (io->port != kDonePort || io->data[0] != 1)
    return fail("{} in ring 0 gives a wrong result", name);
  return {};
}

}  // namespace smol::hypervisor::kvm

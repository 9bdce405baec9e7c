// Everything that one software x86-64 CPU is: what the guest can see (registers, segments, MSRs)
// and what the engine keeps beside it (lazy flags, TLB, the reason why execution stopped). One
// plain struct at one address, so that a handler needs a single pointer. Only the vCPU's own thread
// touches it, but for the atomics at its end. Source of names and meanings: Intel SDM vol. 1
// chapters 3 and 8-11, vol. 3 chapters 2-6.
#pragma once

#include <atomic>

#include "base/bytes.h"

namespace smol::cpu {

// Handlers' files may be built with a stack alignment of 8 (no frame around rare calls); what they
// call realigns.
#if defined(__x86_64__)
#define SMOL_REALIGN __attribute__((force_align_arg_pointer))
#else
#define SMOL_REALIGN
#endif

enum Register : u8 {
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
// Slots behind the 16 registers, so that an effective address is always gpr[base] + (gpr[index] <<
// scale) + disp:
inline constexpr u8 kZeroSlot = 16;  // always 0: no base, no index
inline constexpr u8 kPageSlot =
    17;  // virtual address of the page of the running block: RIP-relative operands
inline constexpr u8 kGprSlots = 18;

// RFLAGS bits (SDM vol. 1, 3.4.3).
inline constexpr u64 kFlagCf = 1 << 0, kFlagPf = 1 << 2, kFlagAf = 1 << 4, kFlagZf = 1 << 6,
                     kFlagSf = 1 << 7, kFlagTf = 1 << 8, kFlagIf = 1 << 9, kFlagDf = 1 << 10,
                     kFlagOf = 1 << 11, kFlagIopl = 3 << 12, kFlagNt = 1 << 14, kFlagRf = 1 << 16,
                     kFlagVm = 1 << 17, kFlagAc = 1 << 18, kFlagVif = 1 << 19, kFlagVip = 1 << 20,
                     kFlagId = 1 << 21;
inline constexpr u64 kArithmeticFlags = kFlagCf | kFlagPf | kFlagAf | kFlagZf | kFlagSf | kFlagOf;

// Control register bits (SDM vol. 3, 2.5).
inline constexpr u64 kCr0Pe = 1, kCr0Mp = 2, kCr0Em = 4, kCr0Ts = 8, kCr0Et = 16, kCr0Ne = 32,
                     kCr0Wp = 1 << 16, kCr0Am = 1 << 18, kCr0Nw = 1 << 29, kCr0Cd = 1 << 30,
                     kCr0Pg = u64{1} << 31;
inline constexpr u64 kCr4Vme = 1, kCr4Pvi = 2, kCr4Tsd = 4, kCr4De = 8, kCr4Pse = 16, kCr4Pae = 32,
                     kCr4Mce = 64, kCr4Pge = 128, kCr4Pce = 256, kCr4Osfxsr = 512,
                     kCr4Osxmmexcpt = 1024, kCr4Umip = 1 << 11, kCr4Fsgsbase = 1 << 16,
                     kCr4Osxsave = 1 << 18, kCr4Smep = 1 << 20, kCr4Smap = 1 << 21;
inline constexpr u64 kEferSce = 1, kEferLme = 1 << 8, kEferLma = 1 << 10, kEferNxe = 1 << 11;

// Exception vectors (SDM vol. 3, 6.3.1).
enum Vector : u8 {
  kDivideError = 0,
  kDebug = 1,
  kNmi = 2,
  kBreakpoint = 3,
  kOverflow = 4,
  kBound = 5,
  kInvalidOpcode = 6,
  kDeviceNotAvailable = 7,
  kDoubleFault = 8,
  kInvalidTss = 10,
  kSegmentNotPresent = 11,
  kStackFault = 12,
  kGeneralProtection = 13,
  kPageFault = 14,
  kX87Error = 16,
  kAlignmentCheck = 17,
  kMachineCheck = 18,
  kSimdError = 19
};

// A segment register with its hidden part. access: descriptor attributes as in VMX (SDM vol. 3
// table 24-2): bits 0-3 type, 4 S, 5-6 DPL, 7 P, 12 AVL, 13 L, 14 D/B, 15 G, 16 unusable (null
// selector).
struct SegmentRegister {
  u64 base = 0;
  u32 limit = 0xffff;  // bytes, G applied
  u16 selector = 0;
  u16 unused = 0;
  u32 access = 0x93;
};
inline constexpr u32 kAccessS = 1 << 4, kAccessPresent = 1 << 7, kAccessLong = 1 << 13,
                     kAccessBig = 1 << 14, kAccessGranular = 1 << 15, kAccessUnusable = 1 << 16;

struct DescriptorTableRegister {
  u64 base = 0;
  u32 limit = 0xffff;
};

struct alignas(16) Vec128 {
  union {
    u8 b[16];
    u16 w[8];
    u32 d[4];
    u64 q[2];
    float f32[4];
    double f64[2];
  };
};

// An 80-bit value as it lies in memory: 64-bit significand, then sign and exponent. MMX registers
// are the significands.
struct alignas(16) Float80 {
  u64 significand = 0;
  u16 sign_exponent = 0;
};

struct X87State {
  Float80 st[8];  // physical registers R0-R7; ST(i) = st[(top + i) & 7]
  u16 control = 0x37f;
  u16 status = 0;  // without TOP, which is `top`
  u8 top = 0;
  u8 empty = 0xff;  // bit i: physical register i is empty (the abridged tag word, inverted)
  u16 last_opcode = 0;
  u64 last_instruction = 0, last_data = 0;
  u16 last_code_segment = 0, last_data_segment = 0;
};

// Arithmetic flags are computed when somebody asks (flags.h): the last flag-setting operation
// leaves its kind, result and operand here.
struct LazyFlags {
  u64 result = 0;
  u64 source = 0;
  u64 extra = 0;
  u8 kind = 0;  // flags.h: FlagKind
};

// Why the engine left the guest. Set by helpers before they return false.
enum class Stop : u8 {
  kNone,
  kFault,  // `fault` holds an exception to be delivered at the current RIP (fault) or after it
           // (trap)
  kIo,    // `io` holds an MMIO or port access that the outside must do; the instruction is then run
          // again
  kHalt,  // HLT retired
  kShutdown,    // triple fault
  kEndOfSlice,  // budget used up
  kAttention,   // `attention` was seen
  kReload,      // mode or mapping changed: look the block up again (internal)
};

struct Fault {
  u8 vector = 0;
  bool has_error_code = false;
  bool trap = false;          // RIP already points behind the instruction (#DB traps, #BP, #OF)
  bool noncanonical = false;  // #GP(0) for a non-canonical address: becomes #SS(0) for a stack
                              // segment (interp/exits.cc)
  u32 error_code = 0;
  u64 address = 0;  // CR2 for #PF, DR6 bits for #DB
};

// An access to what is not RAM. Accesses that one instruction already made are kept in order, with
// the values that were read, so that the instruction can run again from its start after the outside
// answered (as often as it has accesses).
struct IoAccess {
  u64 address = 0;  // guest-physical, or a port
  u64 value = 0;    // written, or answered
  u8 size = 0;      // 1, 2, 4, 8
  bool write = false, port = false;
};
struct IoLog {
  static constexpr u32 kCapacity = 32;
  IoAccess done[kCapacity];
  u32 done_count = 0;  // accesses answered so far for this instruction
  u32 replayed = 0;    // of these, how many the current attempt has used
  IoAccess pending;    // valid when Stop::kIo
};

struct TlbEntry {
  u64 read_tag = 0;  // page | generation, or 0: see mmu/access.h
  u64 write_tag = 0;
  i64 addend = 0;    // host address - guest virtual address
  u64 physical = 0;  // guest-physical page
};

struct Msrs {
  u64 star = 0, lstar = 0, cstar = 0, sfmask = 0, kernel_gs_base = 0, tsc_aux = 0;
  u64 mtrr_variable[16] = {}, mtrr_fixed[11] = {};  // base and mask by turns; 64K, 16K, 4K ranges
  u64 sysenter_cs = 0, sysenter_esp = 0, sysenter_eip = 0;
  u64 pat = 0x0007040600070406, misc_enable = 1, mtrr_def_type = 0xc06, debugctl = 0,
      tsc_adjust = 0;
};

// Where a branch target's block is found by RIP (interp/block_cache.h fills it). tag: Cpu::jump_tag
// when it was entered.
struct JumpEntry {
  u64 rip = 0;
  u64 tag = 0;
  const void* op = nullptr;  // first operation
};
inline constexpr u32 kJumpSets = 128,
                     kJumpSetSize = 64;  // a set holds the targets of a page (hashed)

class Environment;  // environment.h
class Engine;       // interp/engine.h
class Mmu;          // mmu/mmu.h

struct Cpu {
  // --- hot: what handlers touch on every instruction ---
  u64 gpr[kGprSlots] = {};
  LazyFlags lazy;
  i64 budget = 0;           // instructions left in this slice
  TlbEntry* tlb = nullptr;  // the table in force for data accesses (by privilege)
  u64 tlb_generation = 1;   // 1-4095, or'ed into tags
  u64 rip = 0;              // valid when not inside a block: see interp/handler.h
  // RFLAGS without the arithmetic flags (those are in `lazy`), bit 1 set.
  u64 flags = 2;
  u64 jump_tag = 1;  // lookup generation and block mode: what a valid JumpEntry's tag is
  JumpEntry* jump_cache = nullptr;
  const void* link_from = nullptr;  // a direct jump that wants to be linked to the block found next
  u64 scratch[2] =
      {};  // where slow paths put what they read, so that handlers' values stay in registers
  u64 segment_base[8] = {};  // copies of segments[i].base, 0 for CS/DS/ES/SS in 64-bit mode

  // --- architectural state ---
  SegmentRegister segments[6];  // ES CS SS DS FS GS
  SegmentRegister ldtr, tr;
  DescriptorTableRegister gdtr, idtr;
  u64 cr0 = 0x60000010, cr2 = 0, cr3 = 0, cr4 = 0, efer = 0, xcr0 = 1;
  u64 dr[4] = {}, dr6 = 0xffff0ff0, dr7 = 0x400;
  Msrs msr;
  Vec128 xmm[16] = {};
  u32 mxcsr = 0x1f80;
  X87State x87;
  u8 cpl = 0;
  bool interrupt_shadow =
      false;  // STI or MOV SS just retired: no interrupt before the next instruction
  bool nmi_masked = false;
  bool halted = false;
  // An interrupt waits for its window: the engine stops with kAttention as soon as the guest can
  // take one.
  bool window_wanted = false;

  // --- engine ---
  bool several = false;  // the machine has other CPUs: locked accesses are atomic, fences real
  u32 pauses = 0;        // PAUSE instructions met
  // A store into a page with code that is under way, to be looked at when it is done (several CPUs;
  // see finish_code_store in mmu/access.h).
  u64 code_store = 0;
  u32 code_store_size = 0;
  Stop stop = Stop::kNone;
  Fault fault;
  IoLog io;
  u64 retired = 0;  // instructions retired up to the last time that the engine stopped
  i64 slice = 0;    // budget at that time: retired + (slice - budget) is exact at block starts
  Environment* environment = nullptr;
  Engine* engine = nullptr;
  Mmu* mmu = nullptr;
  // --- any thread ---
  std::atomic<bool> attention{
      false};  // somebody wants the engine to stop soon (interrupt, kick, code invalidation)

  bool long_mode() const { return (efer & kEferLma) != 0; }
  bool code64() const { return long_mode() && (segments[1].access & kAccessLong) != 0; }
  bool paging() const { return (cr0 & kCr0Pg) != 0; }
  bool protected_mode() const { return (cr0 & kCr0Pe) != 0; }
  // DPL of SS = CPL (SDM vol. 3, 5.5); cpl caches it.
};

// Records an exception and returns false, for `return raise(cpu, kInvalidOpcode);` in helpers that
// return bool.
inline bool raise(Cpu& cpu, u8 vector) {
  cpu.stop = Stop::kFault;
  cpu.fault = Fault{.vector = vector};
  return false;
}
inline bool raise(Cpu& cpu, u8 vector, u32 error_code) {
  cpu.stop = Stop::kFault;
  cpu.fault = Fault{.vector = vector, .has_error_code = true, .error_code = error_code};
  return false;
}
inline bool raise_gp0(Cpu& cpu) { return raise(cpu, kGeneralProtection, 0); }

}  // namespace smol::cpu

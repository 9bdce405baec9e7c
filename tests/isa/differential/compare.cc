#include "differential/compare.h"

#include <fmt/format.h>

#include "cpu/state/cpu.h"

namespace smol::isa {
namespace {

constexpr const char* kRegisters[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                        "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};

std::string hex_bytes(const u8* bytes, unsigned count) {
  std::string out;
  for (unsigned i = count; i-- > 0;) out += fmt::format("{:02x}", bytes[i]);
  return out;
}

// Flags that may differ at the place where the sequence ended.
u64 flag_mask(const Sequence& sequence, u64 rip, u8 vector) {
  u64 mask =
      ~u64{cpu::kFlagRf};  // RF in the frame: set or not by the kind of fault, and by the kernel
  u16 undefined = sequence.undefined_after;
  const int step = sequence.step_at(vector == cpu::kBreakpoint ? rip - 1 : rip);
  if (step >= 0 && static_cast<size_t>(step) < sequence.steps.size()) {
    const Step& s = sequence.steps[static_cast<size_t>(step)];
    undefined = s.undefined_before;
    // A fault inside a repeated comparison: the iterations before it set the flags in some
    // processors only.
    const bool repeated = s.instruction.repeat != cpu::RepeatPrefix::kNone;
    if (repeated &&
        (s.instruction.opcode == cpu::Opcode::kCmps || s.instruction.opcode == cpu::Opcode::kScas))
      undefined |= cpu::kArithmeticFlags;
  } else if (step < 0) {
    for (const Step& s : sequence.steps)
      undefined |= s.undefined_before | cpu::flag_effects(s.instruction).undefined;
  }
  return mask & ~u64{undefined};
}

template <class T>
void differ(std::string& out, std::string_view what, T native, T soft) {
  if (native != soft)
    out += fmt::format("  {}: native {:x}, interpreter {:x}\n", what, native, soft);
}

// The step that the exception stopped, or nullptr at the end.
const Step* faulting_step(const Sequence& sequence, const Outcome& native) {
  const int step = native.vector == cpu::kBreakpoint ? -1 : sequence.step_at(native.state.rip);
  if (step < 0 || static_cast<size_t>(step) >= sequence.steps.size()) return nullptr;
  return &sequence.steps[static_cast<size_t>(step)];
}

bool has_mmx_operand(const Step& step) {
  for (const cpu::Operand& op : step.instruction.operands)
    if (op.kind == cpu::OperandKind::kMmx) return true;
  return false;
}

// Registers by their physical number, so that TOP may be compared by itself.
const u8* physical(const UserState& s, unsigned i) {
  const unsigned top = (base::load<u16>(s.fx + 2) >> 11) & 7;
  return s.fx + 32 + 16 * ((i - top) & 7);
}

struct FxMasks {
  u16 status = 0xffff;
  u8 tags = 0xff;
  u32 mxcsr = ~u32{0};
};

FxMasks fx_masks(const Sequence& sequence, const UserState& native, const Step* fault, u8 vector) {
  FxMasks masks;
  for (const Step& step : sequence.steps)
    if (leaves_c1_open(step.instruction.opcode)) masks.status = 0xfdff;
  if (fault == nullptr) return masks;
  // AMD's processors are in MMX state already when an MMX instruction faults.
  if (has_mmx_operand(*fault)) masks.status &= 0xc7ff, masks.tags = 0;
  if (vector != cpu::kSimdError) return masks;
  // With unmasked underflow or overflow the precision flag is left to the processor; a dot product
  // takes several steps, of which the first unmasked one ends it.
  if ((native.fx[24] & 0x18) != 0) masks.mxcsr = ~u32{0x20};
  const cpu::Opcode opcode = fault->instruction.opcode;
  if (opcode == cpu::Opcode::kDpps || opcode == cpu::Opcode::kDppd) masks.mxcsr = ~u32{0x3f};
  return masks;
}

void compare_fx(std::string& out, const UserState& native, const UserState& soft,
                const FxMasks& masks) {
  differ(out, "x87 control", base::load<u16>(native.fx), base::load<u16>(soft.fx));
  differ(out, "x87 status", base::load<u16>(native.fx + 2) & masks.status,
         base::load<u16>(soft.fx + 2) & masks.status);
  differ(out, "x87 tags", native.fx[4] & masks.tags, soft.fx[4] & masks.tags);
  differ(out, "mxcsr", base::load<u32>(native.fx + 24) & masks.mxcsr,
         base::load<u32>(soft.fx + 24) & masks.mxcsr);
  for (unsigned i = 0; i < 8; ++i) {
    const u8 *a = physical(native, i), *b = physical(soft, i);
    if (std::memcmp(a, b, 10) != 0)
      out += fmt::format("  x87 register {}: native {}, interpreter {}\n", i, hex_bytes(a, 10),
                         hex_bytes(b, 10));
  }
  for (unsigned i = 0; i < 16; ++i) {
    const u8 *a = native.fx + 160 + 16 * i, *b = soft.fx + 160 + 16 * i;
    if (std::memcmp(a, b, 16) != 0)
      out += fmt::format("  xmm{}: native {}, interpreter {}\n", i, hex_bytes(a, 16),
                         hex_bytes(b, 16));
  }
}

// Whether an x87 instruction with these exceptions unmasked and pending may differ.
bool is_open(cpu::Opcode opcode, u32 unmasked) {
  constexpr u32 kInvalid = 1, kDenormal = 2, kOverflow = 8, kUnderflow = 16;
  switch (opcode) {
    case cpu::Opcode::kFcomi:  // RFLAGS stay by Intel's manual, change on AMD's processors
    case cpu::Opcode::kFcomip:
    case cpu::Opcode::kFucomi:
    case cpu::Opcode::kFucomip:
    case cpu::Opcode::kFprem:  // C2
    case cpu::Opcode::kFprem1:
      return (unmasked & (kInvalid | kDenormal)) != 0;
    case cpu::Opcode::kFld:  // AMD's processors push the value, Intel's and ours do not
      return (unmasked & kDenormal) != 0;
    case cpu::Opcode::kFscale:  // the scaled result when even that does not fit
    case cpu::Opcode::kFyl2x:
    case cpu::Opcode::kFyl2xp1:
    case cpu::Opcode::kF2xm1:
    case cpu::Opcode::kFptan:
    case cpu::Opcode::kFpatan:
    case cpu::Opcode::kFsin:
    case cpu::Opcode::kFcos:
    case cpu::Opcode::kFsincos:
      return (unmasked & (kOverflow | kUnderflow)) != 0;
    default:
      return false;
  }
}

// Sequences whose outcome the architecture, or the choice between Intel's and AMD's, leaves open.
bool incomparable(const Sequence& sequence, const Step* fault, const Outcome& native,
                  const Outcome& soft) {
  if (!native.ended) return true;  // a system call or an endless loop
  const u16 fsw = base::load<u16>(native.state.fx + 2), fcw = base::load<u16>(native.state.fx);
  for (const Step& step : sequence.steps)
    if (is_open(step.instruction.opcode, fsw & ~fcw)) return true;
  // MXCSR.MM, AMD's misaligned SSE mode, which the model does not have.
  if ((base::load<u32>(native.state.fx + 24) & 0x20000) != 0) return true;
  // A loop whose body wrote to its counter may run for long.
  const bool loops =
      !sequence.steps.empty() && sequence.steps.back().target == 1 && sequence.steps.size() > 1;
  if (loops && !soft.ended) return true;
  if (fault == nullptr) return false;
  // No byte selected: access or not is left open (SDM, MASKMOVQ).
  const cpu::Opcode opcode = fault->instruction.opcode;
  if (opcode == cpu::Opcode::kMaskmovq || opcode == cpu::Opcode::kMaskmovdqu) return true;
  // A fault in the middle of POPA leaves the registers that came before it popped, or not.
  if (opcode == cpu::Opcode::kPopa) return true;
  // With AC set: stores of the x87 unit and ENTER probe their page before alignment is looked at,
  // and ENTER's probe of the new stack top is not checked for alignment.
  if (native.vector == cpu::kAlignmentCheck &&
      (opcode == cpu::Opcode::kEnter ||
       (opcode >= cpu::Opcode::kFadd && opcode <= cpu::Opcode::kWait)))
    return true;
  if (native.vector == soft.vector && native.state.rip == soft.state.rip) return false;
  // A misaligned operand that also crosses the stack segment's limit: #GP or #SS.
  const auto is_access = [](u8 vector) {
    return vector == cpu::kGeneralProtection || vector == cpu::kStackFault ||
           vector == cpu::kPageFault;
  };
  const bool access = is_access(native.vector) && is_access(soft.vector);
  if (access && fault->instruction.operands[0].kind == cpu::OperandKind::kXmm) return true;
  // Across the end of a 4 GiB segment: left to the processor (SDM vol. 3, 5.3).
  if (access && sequence.state.cs == kCode32) return true;
  switch (opcode) {
    case cpu::Opcode::kCall:  // a bad target and a bad stack: which is told first differs
    case cpu::Opcode::kIns:   // count 0: rights are checked or not
    case cpu::Opcode::kOuts:
      return true;
    default:
      return false;
  }
}

}  // namespace

std::string compare(const Sequence& sequence, const NativeAnswer& answer, const Outcome& soft,
                    const u8* data) {
  std::string out;
  const Outcome& native = answer.outcome;
  const Step* const fault = faulting_step(sequence, native);
  if (incomparable(sequence, fault, native, soft)) return {};
  if (!soft.ended) return "  the interpreter did not end\n";
  differ(out, "vector", unsigned{native.vector}, unsigned{soft.vector});
  differ(out, "rip", native.state.rip, soft.state.rip);
  if (out.empty()) {
    // Linux says "protection" for every address from the last user page on.
    const u32 kernel = native.vector == cpu::kPageFault && native.address >= 0x7ffffffff000 ? 1 : 0;
    differ(out, "error code", native.error_code | kernel, soft.error_code | kernel);
    // MASKMOV: the byte that is told is the processor's choice.
    const bool masked = fault != nullptr && (fault->instruction.opcode == cpu::Opcode::kMaskmovq ||
                                             fault->instruction.opcode == cpu::Opcode::kMaskmovdqu);
    if (native.vector == cpu::kPageFault && !masked)
      differ(out, "fault address", native.address, soft.address);
  }
  const u64 mask = flag_mask(sequence, native.state.rip, native.vector);
  differ(out, "rflags", native.state.rflags & mask, soft.state.rflags & mask);
  // 32-bit code leaves the upper halves and R8-R15 undefined (SDM vol. 1, 3.4.1.1).
  const bool code32 = sequence.state.cs == kCode32;
  const u64 width = code32 ? 0xffffffff : ~u64{0};
  for (unsigned r = 0; r < (code32 ? 8 : 16); ++r)
    differ(out, kRegisters[r], native.state.gpr[r] & width, soft.state.gpr[r] & width);
  compare_fx(out, native.state, soft.state, fx_masks(sequence, native.state, fault, native.vector));
  if (std::memcmp(answer.data, data, sizeof(answer.data)) != 0) {
    unsigned shown = 0;
    for (u64 at = 0; at < sizeof(answer.data) && shown < 4; at += 8) {
      const u64 a = base::load<u64>(answer.data + at), b = base::load<u64>(data + at);
      if (a == b) continue;
      out += fmt::format("  memory {:x}: native {:016x}, interpreter {:016x}\n", kData + at, a, b);
      ++shown;
    }
  }
  return out;
}

std::string disassemble(const Sequence& sequence) {
  std::string out;
  const std::vector<u8> code = sequence.code();
  for (size_t k = 0; k < sequence.steps.size(); ++k) {
    const Step& s = sequence.steps[k];
    const u32 at = sequence.offset(k);
    std::string bytes;
    for (u32 i = 0; i < s.length; ++i) bytes += fmt::format("{:02x} ", code[at + i]);
    out += fmt::format("  {:x}: {:<45} {}{}\n", sequence.state.rip + at, bytes,
                       s.instruction.lock ? "lock " : "", cpu::opcode_name(s.instruction.opcode));
  }
  return out;
}

std::string describe(const UserState& state) {
  std::string out;
  for (unsigned r = 0; r < 16; ++r)
    out += fmt::format("{}={:x}{}", kRegisters[r], state.gpr[r], r % 4 == 3 ? "\n" : " ");
  out += fmt::format("cs={:x} rip={:x} rflags={:x} fcw={:x} fsw={:x} tags={:x} mxcsr={:x}\n",
                     state.cs, state.rip, state.rflags, base::load<u16>(state.fx),
                     base::load<u16>(state.fx + 2), state.fx[4], base::load<u32>(state.fx + 24));
  for (unsigned i = 0; i < 8; ++i)
    out +=
        fmt::format("st{}={}{}", i, hex_bytes(state.fx + 32 + 16 * i, 10), i % 4 == 3 ? "\n" : " ");
  for (unsigned i = 0; i < 16; ++i)
    out += fmt::format("xmm{}={}{}", i, hex_bytes(state.fx + 160 + 16 * i, 16),
                       i % 2 == 1 ? "\n" : " ");
  return out;
}

}  // namespace smol::isa

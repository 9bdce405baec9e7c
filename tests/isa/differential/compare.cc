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

void compare_fx(std::string& out, const UserState& native, const UserState& soft) {
  differ(out, "x87 control", base::load<u16>(native.fx), base::load<u16>(soft.fx));
  differ(out, "x87 status", base::load<u16>(native.fx + 2), base::load<u16>(soft.fx + 2));
  differ(out, "x87 tags", native.fx[4], soft.fx[4]);
  differ(out, "mxcsr", base::load<u32>(native.fx + 24), base::load<u32>(soft.fx + 24));
  for (unsigned i = 0; i < 8; ++i) {
    const u8 *a = native.fx + 32 + 16 * i, *b = soft.fx + 32 + 16 * i;
    if (std::memcmp(a, b, 10) != 0)
      out +=
          fmt::format("  st{}: native {}, interpreter {}\n", i, hex_bytes(a, 10), hex_bytes(b, 10));
  }
  for (unsigned i = 0; i < 16; ++i) {
    const u8 *a = native.fx + 160 + 16 * i, *b = soft.fx + 160 + 16 * i;
    if (std::memcmp(a, b, 16) != 0)
      out += fmt::format("  xmm{}: native {}, interpreter {}\n", i, hex_bytes(a, 16),
                         hex_bytes(b, 16));
  }
}

}  // namespace

std::string compare(const Sequence& sequence, const NativeAnswer& answer, const Outcome& soft,
                    const u8* data) {
  std::string out;
  const Outcome& native = answer.outcome;
  if (!native.ended) return {};  // a system call or an endless loop: nothing to compare with
  if (!soft.ended) return "  the interpreter did not end\n";
  differ(out, "vector", unsigned{native.vector}, unsigned{soft.vector});
  differ(out, "rip", native.state.rip, soft.state.rip);
  if (out.empty()) {
    // Linux says "protection" for every address of its own half.
    const u32 kernel = native.vector == cpu::kPageFault && native.address >> 63 != 0 ? 1 : 0;
    differ(out, "error code", native.error_code | kernel, soft.error_code | kernel);
    if (native.vector == cpu::kPageFault)
      differ(out, "fault address", native.address, soft.address);
  }
  const u64 mask = flag_mask(sequence, native.state.rip, native.vector);
  differ(out, "rflags", native.state.rflags & mask, soft.state.rflags & mask);
  for (unsigned r = 0; r < 16; ++r)
    differ(out, kRegisters[r], native.state.gpr[r], soft.state.gpr[r]);
  compare_fx(out, native.state, soft.state);
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
  out += fmt::format("rip={:x} rflags={:x} fcw={:x} fsw={:x} tags={:x} mxcsr={:x}\n", state.rip,
                     state.rflags, base::load<u16>(state.fx), base::load<u16>(state.fx + 2),
                     state.fx[4], base::load<u32>(state.fx + 24));
  for (unsigned i = 0; i < 8; ++i)
    out +=
        fmt::format("st{}={}{}", i, hex_bytes(state.fx + 32 + 16 * i, 10), i % 4 == 3 ? "\n" : " ");
  for (unsigned i = 0; i < 16; ++i)
    out += fmt::format("xmm{}={}{}", i, hex_bytes(state.fx + 160 + 16 * i, 16),
                       i % 2 == 1 ? "\n" : " ");
  return out;
}

}  // namespace smol::isa

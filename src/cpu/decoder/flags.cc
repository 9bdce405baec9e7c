// What an instruction does to the arithmetic flags: a table by opcode, and the cases that depend on
// an operand. An instruction that can fault leaves the flags as they were when it does; consumers
// that skip computing flags which a later instruction overwrites have to see to that themselves.
#include "cpu/decoder/instruction.h"

namespace smol::cpu {
namespace {

constexpr u16 kC = 0x001, kP = 0x004, kA = 0x010, kZ = 0x040, kS = 0x080, kO = 0x800;
constexpr u16 kAll = kC | kP | kA | kZ | kS | kO;

struct FlagTable {
  FlagEffects effects[static_cast<unsigned>(Opcode::kCount)];
};

constexpr FlagTable build() {
  FlagTable table{};
#define FLAGS(name, reads, always, maybe, undefined) \
  table.effects[static_cast<unsigned>(Opcode::k##name)] = {reads, always, maybe, undefined};
#include "cpu/decoder/flag_table.inc"
#undef FLAGS
  return table;
}
constexpr FlagTable kFlagTable = build();

// Conditions in pairs (SDM vol. 1, appendix B).
constexpr u16 kConditionReads[8] = {kO, kC, kZ, kC | kZ, kS, kP, kS | kO, kZ | kS | kO};

// The count of a shift or rotate: an immediate, or CL (-1).
int shift_count(const Instruction& i) {
  const Operand& last = i.operands[i.operand_count - 1];
  if (last.kind != OperandKind::kImmediate) return -1;
  return static_cast<int>(i.immediate & (i.operand_size == 8 ? 63 : 31));
}

FlagEffects shift_effects(const Instruction& i) {
  const int count = shift_count(i);
  const int bits = i.operand_size * 8;
  const bool rotate = i.opcode == Opcode::kRol || i.opcode == Opcode::kRor ||
                      i.opcode == Opcode::kRcl || i.opcode == Opcode::kRcr;
  const bool through_carry = i.opcode == Opcode::kRcl || i.opcode == Opcode::kRcr;
  const bool pair = i.opcode == Opcode::kShld || i.opcode == Opcode::kShrd;
  FlagEffects e;
  if (through_carry) e.reads = kC;
  if (count == 0) return e;
  e.writes_maybe = rotate ? kC | kO : kAll;
  if (count > 0) e.writes_always = e.writes_maybe;
  if (!rotate) e.undefined |= kA;
  if (count != 1) e.undefined |= kO;
  // CF when everything is shifted out, and all flags of a double shift by more than the operand's
  // width.
  if (!rotate && i.opcode != Opcode::kSar && bits < 32 && (count < 0 || count >= bits))
    e.undefined |= pair ? kAll : kC;
  return e;
}

}  // namespace

FlagEffects flag_effects(const Instruction& i) {
  switch (i.opcode) {
    case Opcode::kRol:
    case Opcode::kRor:
    case Opcode::kRcl:
    case Opcode::kRcr:
    case Opcode::kShl:
    case Opcode::kShr:
    case Opcode::kSar:
    case Opcode::kShld:
    case Opcode::kShrd:
      return shift_effects(i);
    case Opcode::kJcc:
    case Opcode::kSetcc:
    case Opcode::kCmovcc:
    case Opcode::kFcmovcc:
      return {.reads = kConditionReads[i.condition >> 1],
              .writes_always = 0,
              .writes_maybe = 0,
              .undefined = 0};
    case Opcode::kCmps:
    case Opcode::kScas: {
      FlagEffects e = kFlagTable.effects[static_cast<unsigned>(i.opcode)];
      if (i.repeat != RepeatPrefix::kNone)
        e.writes_always = 0;  // nothing is compared when the count is 0
      return e;
    }
    default:
      return kFlagTable.effects[static_cast<unsigned>(i.opcode)];
  }
}

const char* opcode_name(Opcode opcode) {
  static constexpr const char* kNames[] = {
      "Invalid",
#define OPCODE(name) #name,
#include "cpu/decoder/opcodes_integer.inc"
#include "cpu/decoder/opcodes_simd.inc"
#include "cpu/decoder/opcodes_system.inc"
#include "cpu/decoder/opcodes_x87.inc"
#undef OPCODE
  };
  const auto index = static_cast<unsigned>(opcode);
  return index < sizeof(kNames) / sizeof(kNames[0]) ? kNames[index] : "?";
}

}  // namespace smol::cpu

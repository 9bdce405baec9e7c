// A decoded x86-64 instruction as data, for any consumer: the interpreter lowers it to operations,
// a translator can lower it to host code, a test prints it. Nothing here executes and nothing here
// knows the CPU's state beyond the mode that decoding depends on. Operand order and mnemonics are
// the SDM's (vol. 2).
#pragma once

#include "base/bytes.h"

namespace smol::cpu {

enum class Opcode : u16 {
  kInvalid = 0,  // raises #UD
#define OPCODE(name) k##name,
#include "cpu/decoder/opcodes_integer.inc"
#include "cpu/decoder/opcodes_simd.inc"
#include "cpu/decoder/opcodes_system.inc"
#include "cpu/decoder/opcodes_x87.inc"
#undef OPCODE
  kCount
};
const char* opcode_name(Opcode opcode);  // "Add"

enum class CodeSize : u8 { k16, k32, k64 };  // of the code segment in force (CS.D, CS.L)

// Features that an instruction needs; the decoder turns an instruction whose feature is not in the
// CPU model into kInvalid. Instructions of the baseline need none.
enum class Feature : u8 {
  kBaseline,
  kSse3,
  kSsse3,
  kSse41,
  kSse42,
  kPopcnt,
  kCmpxchg16b,
  kMovbe,
  kLahf64,
  kBmi1,
  kBmi2,
  kLzcnt,
  kAes,
  kPclmul,
  kXsave,
  kXsaveopt,
  kXsavec,
  kXsaves,
  kFsgsbase,
  kRdrand,
  kRdseed,
  kRdpid,
  kRdtscp,
  kSmap,
  kInvpcid,
  kMonitor,
  kClflush,
  kCount
};
using FeatureSet = u64;  // bit i: Feature i
constexpr FeatureSet feature_bit(Feature f) { return FeatureSet{1} << static_cast<unsigned>(f); }

enum class OperandKind : u8 {
  kNone,
  kGpr,        // reg 0-15, low `size` bytes
  kGprHigh8,   // reg 0-3: AH CH DH BH
  kMemory,     // Instruction::memory, `size` bytes
  kImmediate,  // Instruction::immediate (sign- or zero-extended to 64 bits as the instruction says)
  kRelative,   // near branch: target = next RIP + (i64)immediate
  kFarPointer,  // immediate = offset, immediate2 = selector
  kSegment,     // reg: SegmentIndex
  kControl,
  kDebug,
  kX87,  // ST(reg)
  kMmx,
  kXmm,
};

struct Operand {
  OperandKind kind = OperandKind::kNone;
  u8 reg = 0;
  u16 size =
      0;  // bytes; of a memory operand what is accessed (0 for LEA, INVLPG, prefetch; 512 FXSAVE)
};

enum SegmentIndex : u8 { kEs = 0, kCs = 1, kSs = 2, kDs = 3, kFs = 4, kGs = 5, kSegmentCount = 6 };

inline constexpr u8 kNoRegister = 0xff;
inline constexpr u8 kRipRegister = 0xfe;  // as base: address of the next instruction

struct MemoryOperand {
  u8 base = kNoRegister;   // 0-15, kRipRegister or kNoRegister
  u8 index = kNoRegister;  // 0-15 or kNoRegister
  u8 scale = 0;            // shift: 0-3
  u8 segment = kDs;        // the one in force: override or default (SS for rBP/rSP bases)
  i32 displacement = 0;    // sign-extended; MOV moffs64 has its address in Instruction::immediate2
                           // and absolute64 set
  bool absolute64 = false;
};

enum class RepeatPrefix : u8 { kNone, kRep /* F3 */, kRepne /* F2 */ };

struct Instruction {
  Opcode opcode = Opcode::kInvalid;
  u8 length = 0;        // bytes, 1-15
  u8 operand_size = 4;  // 1, 2, 4, 8: effective, in bytes (1 for byte forms)
  u8 address_size = 8;  // 2, 4, 8
  u8 condition = 0;     // Jcc, SETcc, CMOVcc, FCMOVcc: the SDM's tttn, 0-15 (FCMOVcc: B=2 E=4 BE=6
                        // U=10, +1 for the negations)
  RepeatPrefix repeat = RepeatPrefix::kNone;  // F2/F3 where it is not part of the opcode
  bool lock = false;  // LOCK present (and legal: otherwise the decoder says kInvalid)
  u8 operand_count = 0;
  bool has_modrm_memory = false;  // `memory` is an operand, by ModRM or as a moffs of 16 or 32 bits
  Operand operands[4];
  MemoryOperand memory;  // without a memory operand (string instructions, XLAT, MASKMOV) `segment`
                         // still is the source's
  u64 immediate = 0;
  u64 immediate2 = 0;  // ENTER's nesting level, far pointer's selector, moffs address
};

struct DecodeMode {
  CodeSize code_size = CodeSize::k64;
  FeatureSet features = ~FeatureSet{0};
  bool real_mode = false;  // CR0.PE=0 (some opcodes are #UD there)
};

enum class DecodeStatus : u8 {
  kOk,        // also with opcode kInvalid (#UD): length then says how many bytes were looked at
  kNeedMore,  // the bytes end inside the instruction
  kTooLong,   // more than 15 bytes: #GP(0)
};

// bytes: from the instruction's first byte; never reads past bytes + available.
DecodeStatus decode(const u8* bytes, u32 available, const DecodeMode& mode, Instruction& out);

// Arithmetic flags (CF PF AF ZF SF OF as RFLAGS bits) that the instruction reads, writes, and
// leaves undefined. For shifts by CL or by an immediate the masks say what may be written; `may`
// differs from `must` there.
struct FlagEffects {
  u16 reads = 0;
  u16 writes_always = 0;  // overwritten whatever the operands
  u16 writes_maybe = 0;   // superset of writes_always
  u16 undefined = 0;      // subset of writes_maybe: value not architecturally defined
};
FlagEffects flag_effects(const Instruction& instruction);

}  // namespace smol::cpu

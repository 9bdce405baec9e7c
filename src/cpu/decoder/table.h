// The instruction table's vocabulary. A row is one line of the SDM's opcode tables (vol. 2,
// appendix A and the instruction pages) as data; table.cc turns all rows into lookup tables at
// compile time; decode.cc reads those. Nothing else about an instruction's encoding is written
// anywhere else.
#pragma once

#include "cpu/decoder/instruction.h"

namespace smol::cpu::table {

// Opcode maps. kV38 and kV3A are the VEX-encoded 0F38 and 0F3A maps (general-register instructions
// only).
enum Map : u8 { kOne, k0F, k38, k3A, kV38, kV3A, kMapCount };

// Which 66/F2/F3 prefix selects the row. kAny: none does (66 is the operand size, F2/F3 are repeat
// prefixes or ignored).
enum Prefix : u8 { kNP, k66, kF3, kF2, kPrefixCount, kAny };

// What the row asks of the ModRM byte.
struct Form {
  enum Kind : u8 { kNone, kMemory, kRegister, kEither, kExact } kind = kNone;
  u8 value = 0xff;  // reg field, 0xff for any; the whole byte for kExact
};
inline constexpr Form kNo{};
inline constexpr Form kMem{Form::kMemory, 0xff};
inline constexpr Form kReg{Form::kRegister, 0xff};
constexpr Form ext(u8 n) { return {Form::kEither, n}; }
constexpr Form mem(u8 n) { return {Form::kMemory, n}; }
constexpr Form reg(u8 n) { return {Form::kRegister, n}; }
constexpr Form byte(u8 modrm) { return {Form::kExact, modrm}; }

// Operands, in the SDM's notation (vol. 2, A.2): E/M/R ModRM rm as general register or memory, G
// ModRM reg, B VEX.vvvv, Z the opcode's low three bits, I immediate, J relative, O moffs, P/Q/N
// MMX, V/W/U XMM, S segment, C control, D debug; sizes b w d q, v (16/32/64), y (32, 64 with
// REX.W), z (16/32), x (128). Two capitals: register form, then memory form.
enum Spec : u8 {
  kNoOperand,
  // Operands that use ModRM.
  Eb,
  Ew,
  Ed,
  Ev,
  Ey,
  Mb,
  Mw,
  Md,
  Mq,
  Mt,
  Mx,
  Mv,
  My,
  M,
  M512,
  Ma,
  Mp,
  Ms,
  Menv,
  Mstate,
  RvMw,
  RdMb,
  RdMw,
  RdMd,
  Rv,
  Ry,
  Rm,
  Gm,
  Gb,
  Gw,
  Gd,
  Gv,
  Gy,
  Sw,
  Cr,
  Dr,
  Pq,
  Qq,
  Qd,
  Nq,
  Vx,
  Vsd,
  Vss,
  Wx,
  Wsd,
  Wss,
  Ww,
  Ux,
  STi,
  kLastModrmSpec = STi,
  By,
  Zb,
  Zv,
  ZvW,  // ZvW: 64-bit width decided by kD64
  AL,
  AX,
  rAX,
  eAXz,
  CL,
  DX,
  One,
  ST0,
  ES,
  CS,
  SS,
  DS,
  FS,
  GS,
  Ib,
  Ibs,
  Iw,
  Iz,
  Iv,
  Jb,
  Jz,
  Ap,
  Ob,
  Ov,
};

enum Flag : u32 {
  kLock = 1u << 0,  // LOCK is legal when the first operand is memory
  kD64 = 1u << 1,   // operand size defaults to 64 bits in 64-bit code (66 still selects 16)
  kF64 = 1u << 2,   // operand size is 64 bits in 64-bit code, 66 is ignored (Intel; AMD differs)
  kI64 = 1u << 3,   // #UD in 64-bit code
  kO64 = 1u << 4,   // #UD outside of it
  kProt = 1u << 5,  // #UD in real mode
  kModIgnored = 1u << 6,  // ModRM.mod is taken as 3
  kWPair = 1u << 7,       // with REX.W the next row holds
  kW1 = 1u << 8,          // is such a next row
  kByteOp = 1u << 9,      // operand size is 1
  kZOp = 1u << 10,        // operand size is at most 4 (REX.W is ignored)
  kCc = 1u << 11,         // the condition is in the opcode's low four bits
  kSpan8 = 1u << 12,      // the row stands for 8 opcodes in a row
  kSpan16 = 1u << 13,     // ... 16
  kModrm = 1u << 14,      // derived: a ModRM byte follows
  kExactPrefix =
      1u << 15,    // derived: 66/F2/F3 selected the row and are no operand-size or repeat prefix
  kL0 = 1u << 16,  // VEX.vvvv is unused and must be 1111
};

struct Row {
  Map map;
  Prefix prefix;
  u8 opcode_byte;
  Form form;
  Opcode opcode;
  Spec operands[4] = {};
  u32 flags = 0;
  Feature feature = Feature::kBaseline;
};

// What decode() needs of a row.
struct Entry {
  Opcode opcode;
  u8 operands[4];
  Feature feature;
  u8 operand_count;
  u32 flags;
};

// A slot is 0 (no instruction), an index of `entries` plus 1, or kGroupBit with an index of a finer
// table: first by ModRM (8 * (mod == 3) + reg), then by rm.
inline constexpr u16 kGroupBit = 0x8000;

struct Tables {
  static constexpr unsigned kMaxEntries = 1400, kMaxGroups = 320, kMaxRmGroups = 40;
  Entry entries[kMaxEntries];
  u16 slots[2][kMapCount][kPrefixCount][256];  // [64-bit code][map][prefix][opcode byte]
  u16 groups[kMaxGroups][16];
  u16 rm_groups[kMaxRmGroups][8];
  u16 entry_count, group_count, rm_group_count;
};
extern const Tables kTables;

// The rows as written, for tests and for generators of instructions.
std::span<const Row> rows();

}  // namespace smol::cpu::table

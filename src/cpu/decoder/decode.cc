// The decoder: prefixes, opcode, ModRM and SIB, operands, in one pass over the bytes with every
// read bounded. What an encoding means comes from the table (table.h); this file knows only how
// instructions are put together (SDM vol. 2, chapter 2) and the few encodings that no table line
// can tell. Where Intel and AMD differ Intel's rule is taken: near branches in 64-bit code ignore
// the operand-size prefix.
#include "cpu/decoder/instruction.h"
#include "cpu/decoder/table.h"

namespace smol::cpu {
namespace {

using namespace table;

constexpr u32 kMaxLength = 15;

struct Decoder {
  const u8* start;
  const u8* at;
  const u8* end;  // of what may be read: at most kMaxLength bytes
  const DecodeMode& mode;
  Instruction& out;
  u8 rex = 0;  // also carries VEX.W, R, X, B in REX's places
  u8 override = 0xff;
  u8 opcode_byte = 0;
  u8 modrm = 0;
  u8 vvvv = 0;
  bool size_prefix = false;
  bool vex = false;
  bool short_of_bytes = false;

  bool is64() const { return mode.code_size == CodeSize::k64; }
  bool w() const { return (rex & 8) != 0; }
  u8 reg_field() const { return static_cast<u8>(((modrm >> 3) & 7) | ((rex & 4) << 1)); }
  u8 rm_field() const { return static_cast<u8>((modrm & 7) | ((rex & 1) << 3)); }
  bool is_memory() const { return modrm < 0xc0; }

  template <class T>
  T fetch() {
    if (static_cast<size_t>(end - at) < sizeof(T)) [[unlikely]] {
      short_of_bytes = true;
      at = end;
      return 0;
    }
    const T value = base::load<T>(at);
    at += sizeof(T);
    return value;
  }

  bool prefixes();
  bool vex_prefix(Map& map, unsigned& prefix);
  void decode_memory();
  void decode_memory16();
  void operand_sizes(u32 flags);
  bool operand(Spec spec, Operand& operand);
  bool register_or_memory(Operand& operand, u16 size);
  bool vector_or_memory(Operand& operand, OperandKind kind, u16 register_size, u16 memory_size);
  bool implicit_or_immediate(Spec spec, Operand& operand);
  void finish(const Entry& entry);
};

bool set(Operand& operand, OperandKind kind, unsigned number, unsigned size) {
  operand = {kind, static_cast<u8>(number), static_cast<u16>(size)};
  return true;
}

// Reads legacy prefixes and REX; leaves the first opcode byte in opcode_byte. False: out of bytes.
bool Decoder::prefixes() {
  for (;;) {
    const u8 b = fetch<u8>();
    if (short_of_bytes) return false;
    switch (b) {
      case 0x26:
      case 0x2e:
      case 0x36:
      case 0x3e:
        if (!is64()) override = (b >> 3) & 3;
        break;
      case 0x64:
        override = kFs;
        break;
      case 0x65:
        override = kGs;
        break;
      case 0x66:
        size_prefix = true;
        break;
      case 0x67:
        out.address_size = mode.code_size == CodeSize::k32 ? 2 : 4;
        break;
      case 0xf0:
        out.lock = true;
        break;
      case 0xf2:
        out.repeat = RepeatPrefix::kRepne;
        break;
      case 0xf3:
        out.repeat = RepeatPrefix::kRep;
        break;
      default:
        if ((b & 0xf0) == 0x40 && is64()) {
          rex = b;
          continue;
        }
        opcode_byte = b;
        return true;
    }
    rex = 0;  // counts only right before the opcode
  }
}

// C4/C5 as a VEX prefix (SDM vol. 2, 2.3.5). False: not a form that any instruction of ours has.
bool Decoder::vex_prefix(Map& map, unsigned& prefix) {
  if (size_prefix || out.repeat != RepeatPrefix::kNone || rex != 0 || out.lock || mode.real_mode)
    return false;
  if (opcode_byte == 0xc5) return false;  // the two-byte form has only map 0F
  const u8 p1 = fetch<u8>(), p2 = fetch<u8>();
  rex = static_cast<u8>(((~p1 >> 5) & 7) | ((p2 >> 4) & 8));
  if (!is64()) rex = 0;
  vvvv = static_cast<u8>((~p2 >> 3) & 15);
  vex = true;
  prefix = p2 & 3;
  if ((p2 & 4) != 0) return false;  // 256 bits
  if ((p1 & 0x1f) != 2 && (p1 & 0x1f) != 3) return false;
  map = (p1 & 0x1f) == 2 ? kV38 : kV3A;
  opcode_byte = fetch<u8>();
  return true;
}

// 16-bit addressing (SDM vol. 2, table 2-1).
void Decoder::decode_memory16() {
  static constexpr u8 kBase[8] = {3, 3, 5, 5, 6, 7, 5, 3};
  static constexpr u8 kIndex[8] = {6, 7, 6, 7, kNoRegister, kNoRegister, kNoRegister, kNoRegister};
  MemoryOperand& m = out.memory;
  const unsigned mod = modrm >> 6, rm = modrm & 7;
  if (mod == 0 && rm == 6) {
    m.displacement = fetch<i16>();
    return;
  }
  m.base = kBase[rm];
  m.index = kIndex[rm];
  if (m.base == 5) m.segment = kSs;
  if (mod == 1) m.displacement = fetch<i8>();
  if (mod == 2) m.displacement = fetch<i16>();
}

void Decoder::decode_memory() {
  MemoryOperand& m = out.memory;
  out.has_modrm_memory = true;
  if (out.address_size == 2) {
    decode_memory16();
  } else {
    const unsigned mod = modrm >> 6;
    unsigned base = modrm & 7;
    bool displacement32 = mod == 2;
    if (base == 4) {
      const u8 sib = fetch<u8>();
      const unsigned index = ((sib >> 3) & 7) | ((rex & 2) << 2);
      base = sib & 7;
      if (index != 4) {
        m.index = static_cast<u8>(index);
        m.scale = sib >> 6;
      }
      if (mod == 0 && base == 5) {
        displacement32 = true;
      } else {
        m.base = static_cast<u8>(base | ((rex & 1) << 3));
      }
    } else if (mod == 0 && base == 5) {
      displacement32 = true;
      if (is64()) m.base = kRipRegister;
    } else {
      m.base = static_cast<u8>(base | ((rex & 1) << 3));
    }
    if (m.base == 4 || m.base == 5) m.segment = kSs;
    if (mod == 1) m.displacement = fetch<i8>();
    if (displacement32) m.displacement = fetch<i32>();
  }
  if (override != 0xff) m.segment = override;
}

void Decoder::operand_sizes(u32 flags) {
  u8 size;
  if (is64()) {
    size = w() ? 8 : size_prefix ? 2 : 4;
    if ((flags & kD64) != 0 && !size_prefix) size = 8;
    if ((flags & kF64) != 0) size = 8;
  } else {
    size = (mode.code_size == CodeSize::k32) != size_prefix ? 4 : 2;
  }
  if ((flags & kByteOp) != 0) size = 1;
  if ((flags & kZOp) != 0 && size == 8) size = 4;
  out.operand_size = size;
}

bool Decoder::register_or_memory(Operand& operand, u16 size) {
  if (is_memory()) return set(operand, OperandKind::kMemory, 0, size);
  const u8 number = rm_field();
  if (size == 1 && rex == 0 && number >= 4)
    return set(operand, OperandKind::kGprHigh8, number - 4, 1);
  return set(operand, OperandKind::kGpr, number, size);
}

bool Decoder::vector_or_memory(Operand& operand, OperandKind kind, u16 register_size,
                               u16 memory_size) {
  if (is_memory()) return set(operand, OperandKind::kMemory, 0, memory_size);
  return set(operand, kind, kind == OperandKind::kMmx ? modrm & 7 : rm_field(), register_size);
}

// Fills one operand. False: the encoding is not valid.
bool Decoder::operand(Spec spec, Operand& op) {
  using enum OperandKind;
  const u8 v = out.operand_size;
  const u8 y = w() ? 8 : 4;
  const u8 native = is64() ? 8 : 4;
  switch (spec) {
    case Eb:
      return register_or_memory(op, 1);
    case Ew:
      return register_or_memory(op, 2);
    case Ed:
      return register_or_memory(op, 4);
    case Ev:
      return register_or_memory(op, v);
    case Ey:
      return register_or_memory(op, y);
    case RvMw:
      return register_or_memory(op, is_memory() ? 2 : v);
    case RdMb:
      return is_memory() ? set(op, kMemory, 0, 1) : set(op, kGpr, rm_field(), 4);
    case RdMw:
      return register_or_memory(op, is_memory() ? 2 : 4);
    case RdMd:
      return register_or_memory(op, 4);
    case Mb:
      return is_memory() && set(op, kMemory, 0, 1);
    case Mw:
      return is_memory() && set(op, kMemory, 0, 2);
    case Md:
      return is_memory() && set(op, kMemory, 0, 4);
    case Mq:
      return is_memory() && set(op, kMemory, 0, 8);
    case Mt:
      return is_memory() && set(op, kMemory, 0, 10);
    case Mx:
      return is_memory() && set(op, kMemory, 0, 16);
    case Mv:
      return is_memory() && set(op, kMemory, 0, v);
    case My:
      return is_memory() && set(op, kMemory, 0, y);
    case M:
      return set(op, is_memory() ? kMemory : kGpr, is_memory() ? 0 : rm_field(), 0);
    case M512:
      return is_memory() && set(op, kMemory, 0, 512);
    case Ma:
      return is_memory() && set(op, kMemory, 0, 2 * v);
    case Mp:
      return is_memory() && set(op, kMemory, 0, 2 + v);
    case Ms:
      return is_memory() && set(op, kMemory, 0, is64() ? 10 : 6);
    case Menv:
      return is_memory() && set(op, kMemory, 0, v == 2 ? 14 : 28);
    case Mstate:
      return is_memory() && set(op, kMemory, 0, v == 2 ? 94 : 108);
    case Rv:
      return set(op, kGpr, rm_field(), v);
    case Ry:
      return set(op, kGpr, rm_field(), y);
    case Rm:
      return set(op, kGpr, rm_field(), native);
    case Gm:
      return set(op, kGpr, reg_field(), native);
    case Gb: {
      const u8 number = reg_field();
      if (rex == 0 && number >= 4) return set(op, kGprHigh8, number - 4, 1);
      return set(op, kGpr, number, 1);
    }
    case Gw:
      return set(op, kGpr, reg_field(), 2);
    case Gd:
      return set(op, kGpr, reg_field(), 4);
    case Gv:
      return set(op, kGpr, reg_field(), v);
    case Gy:
      return set(op, kGpr, reg_field(), y);
    case Sw: {
      const u8 number = (modrm >> 3) & 7;
      return number < kSegmentCount && set(op, kSegment, number, 2);
    }
    case Cr: {
      const u8 number = reg_field();
      return (number <= 4 ? number != 1 : number == 8) && set(op, kControl, number, native);
    }
    case Dr:
      return reg_field() < 8 && set(op, kDebug, reg_field(), native);
    case Pq:
      return set(op, kMmx, (modrm >> 3) & 7, 8);
    case Nq:
      return set(op, kMmx, modrm & 7, 8);
    case Qq:
      return vector_or_memory(op, kMmx, 8, 8);
    case Qd:
      return vector_or_memory(op, kMmx, 8, 4);
    case Vx:
      return set(op, kXmm, reg_field(), 16);
    case Vsd:
      return set(op, kXmm, reg_field(), 8);
    case Vss:
      return set(op, kXmm, reg_field(), 4);
    case Ux:
      return set(op, kXmm, rm_field(), 16);
    case Wx:
      return vector_or_memory(op, kXmm, 16, 16);
    case Wsd:
      return vector_or_memory(op, kXmm, 8, 8);
    case Wss:
      return vector_or_memory(op, kXmm, 4, 4);
    case Ww:
      return vector_or_memory(op, kXmm, 2, 2);
    case STi:
      return set(op, kX87, modrm & 7, 10);
    default:
      return implicit_or_immediate(spec, op);
  }
}

// Operands outside of ModRM.
bool Decoder::implicit_or_immediate(Spec spec, Operand& op) {
  using enum OperandKind;
  const u8 v = out.operand_size;
  switch (spec) {
    case By:
      return set(op, kGpr, is64() ? vvvv : vvvv & 7, w() ? 8 : 4);
    case Zb: {
      const unsigned number = (opcode_byte & 7) | ((rex & 1) << 3);
      if (rex == 0 && number >= 4) return set(op, kGprHigh8, number - 4, 1);
      return set(op, kGpr, number, 1);
    }
    case Zv:
      return set(op, kGpr, (opcode_byte & 7) | ((rex & 1) << 3), v);
    case AL:
      return set(op, kGpr, 0, 1);
    case AX:
      return set(op, kGpr, 0, 2);
    case rAX:
    case eAXz:
      return set(op, kGpr, 0, v);
    case CL:
      return set(op, kGpr, 1, 1);
    case DX:
      return set(op, kGpr, 2, 2);
    case ST0:
      return set(op, kX87, 0, 10);
    case ES:
    case CS:
    case SS:
    case DS:
    case FS:
    case GS:
      return set(op, kSegment, spec - ES, 2);
    case One:
      out.immediate = 1;
      return set(op, kImmediate, 0, 1);
    case Ib:
      (out.opcode == Opcode::kEnter ? out.immediate2 : out.immediate) = fetch<u8>();
      return set(op, kImmediate, 0, 1);
    case Ibs:
      out.immediate = static_cast<u64>(i64{fetch<i8>()});
      return set(op, kImmediate, 0, v);
    case Iw:
      out.immediate = fetch<u16>();
      return set(op, kImmediate, 0, 2);
    case Iz:
      out.immediate = static_cast<u64>(v == 2 ? i64{fetch<i16>()} : i64{fetch<i32>()});
      return set(op, kImmediate, 0, v);
    case Iv:
      if (v == 8) {
        out.immediate = fetch<u64>();
      } else {
        out.immediate = static_cast<u64>(v == 2 ? i64{fetch<i16>()} : i64{fetch<i32>()});
      }
      return set(op, kImmediate, 0, v);
    case Jb:
      out.immediate = static_cast<u64>(i64{fetch<i8>()});
      return set(op, kRelative, 0, v);
    case Jz:
      out.immediate = static_cast<u64>(v == 2 ? i64{fetch<i16>()} : i64{fetch<i32>()});
      return set(op, kRelative, 0, v);
    case Ap:
      out.immediate = v == 2 ? fetch<u16>() : fetch<u32>();
      out.immediate2 = fetch<u16>();
      return set(op, kFarPointer, 0, v + 2);
    case Ob:
    case Ov:
      if (out.address_size == 8) {
        out.immediate2 = fetch<u64>();
        out.memory.absolute64 = true;
      } else {
        out.memory.displacement = out.address_size == 2 ? i32{fetch<u16>()} : fetch<i32>();
        out.has_modrm_memory = true;
      }
      return set(op, kMemory, 0, v);
    default:
      return false;
  }
}

// What no table line tells.
void Decoder::finish(const Entry& entry) {
  Instruction& i = out;
  if ((entry.flags & kCc) != 0) i.condition = opcode_byte & 15;
  switch (i.opcode) {
    case Opcode::kFcmovcc: {
      static constexpr u8 kConditions[4] = {2, 4, 6, 10};
      i.condition = static_cast<u8>(kConditions[(modrm >> 3) & 3] + (opcode_byte & 1));
      break;
    }
    case Opcode::kMovSegment:  // CS cannot be loaded
      if (opcode_byte == 0x8e && i.operands[0].reg == kCs) i.opcode = Opcode::kInvalid;
      break;
    case Opcode::kPrefetch:
      if (!i.has_modrm_memory) i.opcode = Opcode::kNop;
      break;
    case Opcode::kXchg:
      if (opcode_byte == 0x90 && i.operand_count == 2 && (entry.flags & kModrm) == 0 &&
          i.operands[0].reg == 0) {
        i.opcode = i.repeat == RepeatPrefix::kRep ? Opcode::kPause : Opcode::kNop;
        i.operand_count = 0;
        i.operands[0] = i.operands[1] = {};
      }
      break;
    default:
      break;
  }
}

DecodeStatus invalid(Decoder& d) {
  d.out.opcode = Opcode::kInvalid;
  d.out.operand_count = 0;
  d.out.length = static_cast<u8>(d.at - d.start);
  return DecodeStatus::kOk;
}

unsigned mandatory_prefix(const Decoder& d) {
  if (d.out.repeat == RepeatPrefix::kRep) return kF3;
  if (d.out.repeat == RepeatPrefix::kRepne) return kF2;
  return d.size_prefix ? k66 : kNP;
}

// Finds the map and, for VEX and the escapes, the final opcode byte. False: no such encoding, or
// out of bytes.
bool find_map(Decoder& d, Map& map, unsigned& prefix) {
  map = kOne;
  prefix = kNP;
  const u8 b = d.opcode_byte;
  if (b == 0x0f) {
    d.opcode_byte = d.fetch<u8>();
    map = k0F;
    prefix = mandatory_prefix(d);
    if (d.opcode_byte == 0x38 || d.opcode_byte == 0x3a) {
      map = d.opcode_byte == 0x38 ? k38 : k3A;
      d.opcode_byte = d.fetch<u8>();
    }
  } else if ((b & 0xfe) == 0xc4) {
    if (!d.is64() && d.at < d.end && *d.at < 0xc0) return true;  // LES, LDS
    if (!d.is64() && d.at == d.end) {
      d.short_of_bytes = true;
      return false;
    }
    return d.vex_prefix(map, prefix);
  }
  return !d.short_of_bytes;
}

}  // namespace

DecodeStatus decode(const u8* bytes, u32 available, const DecodeMode& mode, Instruction& out) {
  out = Instruction{};
  out.address_size = static_cast<u8>(2u << static_cast<unsigned>(mode.code_size));
  const bool whole = available >= kMaxLength;
  Decoder d{.start = bytes,
            .at = bytes,
            .end = bytes + (whole ? kMaxLength : available),
            .mode = mode,
            .out = out};
  const auto ran_out = [&] {
    out = Instruction{};
    return whole ? DecodeStatus::kTooLong : DecodeStatus::kNeedMore;
  };
  if (!d.prefixes()) return ran_out();
  Map map;
  unsigned prefix;
  const bool known = find_map(d, map, prefix);
  if (d.short_of_bytes) return ran_out();
  if (!known) return invalid(d);

  u16 slot = kTables.slots[d.is64()][map][prefix][d.opcode_byte];
  if (slot == 0) return invalid(d);
  bool have_modrm = false;
  if ((slot & kGroupBit) != 0) {
    d.modrm = d.fetch<u8>();
    if (d.short_of_bytes) return ran_out();
    have_modrm = true;
    slot = kTables.groups[slot & ~kGroupBit][((d.modrm >= 0xc0) << 3) | ((d.modrm >> 3) & 7)];
    if ((slot & kGroupBit) != 0) slot = kTables.rm_groups[slot & ~kGroupBit][d.modrm & 7];
    if (slot == 0) return invalid(d);
  }
  const Entry* entry = &kTables.entries[slot - 1];
  if ((entry->flags & kWPair) != 0 && d.w()) ++entry;
  if ((entry->flags & kModrm) != 0 && !have_modrm) d.modrm = d.fetch<u8>();
  if ((entry->flags & kModIgnored) != 0) d.modrm |= 0xc0;

  out.opcode = entry->opcode;
  if (entry->feature != Feature::kBaseline && (mode.features & feature_bit(entry->feature)) == 0) {
    if (out.opcode == Opcode::kTzcnt) {
      out.opcode = Opcode::kBsf;
    } else if (out.opcode == Opcode::kLzcnt) {
      out.opcode = Opcode::kBsr;
    } else {
      return invalid(d);
    }
  }
  if ((entry->flags & kProt) != 0 && mode.real_mode) return invalid(d);
  if ((entry->flags & kL0) != 0 && d.vvvv != 0) return invalid(d);
  if ((entry->flags & kExactPrefix) != 0) out.repeat = RepeatPrefix::kNone;
  d.operand_sizes(entry->flags);
  if (d.override != 0xff) out.memory.segment = d.override;
  if ((entry->flags & kModrm) != 0 && d.modrm < 0xc0 && !d.short_of_bytes) d.decode_memory();
  out.operand_count = entry->operand_count;
  for (unsigned i = 0; i < entry->operand_count; ++i)
    if (!d.operand(static_cast<Spec>(entry->operands[i]), out.operands[i]))
      return d.short_of_bytes ? ran_out() : invalid(d);
  if (d.short_of_bytes) return ran_out();
  d.finish(*entry);
  if (out.lock && ((entry->flags & kLock) == 0 || out.operands[0].kind != OperandKind::kMemory))
    return invalid(d);
  if (out.opcode == Opcode::kInvalid) return invalid(d);
  out.length = static_cast<u8>(d.at - d.start);
  return DecodeStatus::kOk;
}

}  // namespace smol::cpu

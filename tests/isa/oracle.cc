// Both decoders' results are brought to one text, "mnemonic operand, operand" with what can be
// compared, and the texts are compared. Zydis splits mnemonics by size and condition where we have
// one opcode with a field; `canonical_name` folds them. An instruction that we do not have (a name
// unknown to our opcode list) must be invalid here.
#include "oracle.h"

#include <Zydis/Zydis.h>
#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <string_view>

namespace smol::isa {
namespace {

using cpu::Instruction;
using cpu::Opcode;
using cpu::Operand;
using cpu::OperandKind;

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? c + 32 : c; });
  return out;
}

const std::set<std::string>& our_names() {
  static const std::set<std::string> names = [] {
    std::set<std::string> all;
    for (unsigned i = 1; i < static_cast<unsigned>(Opcode::kCount); ++i)
      all.insert(lower(cpu::opcode_name(static_cast<Opcode>(i))));
    return all;
  }();
  return names;
}

constexpr std::string_view kConditions[16] = {"o", "no", "b", "nb", "z", "nz", "be", "nbe",
                                              "s", "ns", "p", "np", "l", "nl", "le", "nle"};

// "jnz" -> "jcc5" and so on.
bool fold_condition(std::string& name) {
  if (name.starts_with("fcmov")) {
    constexpr std::string_view kNames[8] = {"b", "nb", "e", "ne", "be", "nbe", "u", "nu"};
    constexpr int kValues[8] = {2, 3, 4, 5, 6, 7, 10, 11};
    for (int i = 0; i < 8; ++i) {
      if (name.substr(5) != kNames[i]) continue;
      name = fmt::format("fcmovcc{}", kValues[i]);
      return true;
    }
  }
  for (std::string_view stem : {"j", "set", "cmov"}) {
    if (!name.starts_with(stem)) continue;
    for (int i = 0; i < 16; ++i) {
      if (name.substr(stem.size()) != kConditions[i]) continue;
      name = fmt::format("{}cc{}", stem, i);
      return true;
    }
  }
  return false;
}

struct Alias {
  std::string_view zydis, ours;
};
constexpr Alias kAliases[] = {
    {"cwde", "cbw"},
    {"cdqe", "cbw"},
    {"cdq", "cwd"},
    {"cqo", "cwd"},
    {"pushad", "pusha"},
    {"popad", "popa"},
    {"pushfd", "pushf"},
    {"pushfq", "pushf"},
    {"popfd", "popf"},
    {"popfq", "popf"},
    {"iretd", "iret"},
    {"iretq", "iret"},
    {"jecxz", "jcxz"},
    {"jrcxz", "jcxz"},
    {"fwait", "wait"},
    {"fstpnce", "fstp"},
    {"feni8087_nop", "fnop"},
    {"fdisi8087_nop", "fnop"},
    {"fsetpm287_nop", "fnop"},
    {"fxsave64", "fxsave"},
    {"fxrstor64", "fxrstor"},
    {"xsave64", "xsave"},
    {"xrstor64", "xrstor"},
    {"xsaveopt64", "xsaveopt"},
    {"xsavec64", "xsavec"},
    {"xsaves64", "xsaves"},
    {"xrstors64", "xrstors"},
    {"prefetchnta", "prefetch"},
    {"prefetcht0", "prefetch"},
    {"prefetcht1", "prefetch"},
    {"prefetcht2", "prefetch"},
    {"prefetchw", "prefetch"},
    {"prefetchwt1", "prefetch"},
    {"xlat", "xlat"},
    {"wbnoinvd", "wbinvd"},
    {"sysretq", "sysret"},
};

std::string string_instruction(std::string name) {
  if (name.size() > 4) name.resize(4);
  if (name.starts_with("ins")) return "ins";
  return name;
}

std::string canonical_name(const ZydisDecodedInstruction& z, const ZydisDecodedOperand* operands) {
  std::string name = ZydisMnemonicGetString(z.mnemonic);
  const bool one_byte = z.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT;
  if (one_byte && ((z.opcode >= 0xa4 && z.opcode <= 0xaf && (z.opcode & 0xfe) != 0xa8) ||
                   (z.opcode >= 0x6c && z.opcode <= 0x6f)))
    return string_instruction(name);
  if (fold_condition(name)) return name;
  if (z.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR &&
      (name == "call" || name == "jmp" || name == "ret"))
    return name + "far";
  if (name == "mov" || name == "push" || name == "pop") {
    for (unsigned i = 0; i < z.operand_count_visible; ++i) {
      if (operands[i].type != ZYDIS_OPERAND_TYPE_REGISTER) continue;
      const ZydisRegisterClass c = ZydisRegisterGetClass(operands[i].reg.value);
      if (c == ZYDIS_REGCLASS_SEGMENT) return name + "segment";
      if (c == ZYDIS_REGCLASS_CONTROL) return "movcontrol";
      if (c == ZYDIS_REGCLASS_DEBUG) return "movdebug";
    }
  }
  for (const Alias& alias : kAliases)
    if (alias.zydis == name) return std::string(alias.ours);
  return name;
}

std::string canonical_register(ZydisRegister r) {
  const int id = ZydisRegisterGetId(r);
  switch (ZydisRegisterGetClass(r)) {
    case ZYDIS_REGCLASS_GPR8:
      if (r >= ZYDIS_REGISTER_AH && r <= ZYDIS_REGISTER_BH)
        return fmt::format("h{}", r - ZYDIS_REGISTER_AH);
      if (r >= ZYDIS_REGISTER_SPL) return fmt::format("r{}.1", r - ZYDIS_REGISTER_SPL + 4);
      return fmt::format("r{}.1", r - ZYDIS_REGISTER_AL);
    case ZYDIS_REGCLASS_GPR16:
      return fmt::format("r{}.2", id);
    case ZYDIS_REGCLASS_GPR32:
      return fmt::format("r{}.4", id);
    case ZYDIS_REGCLASS_GPR64:
      return fmt::format("r{}.8", id);
    case ZYDIS_REGCLASS_X87:
      return fmt::format("st{}", id);
    case ZYDIS_REGCLASS_MMX:
      return fmt::format("mm{}", id);
    case ZYDIS_REGCLASS_XMM:
      return fmt::format("xmm{}", id);
    case ZYDIS_REGCLASS_SEGMENT:
      return fmt::format("seg{}", id);
    case ZYDIS_REGCLASS_CONTROL:
      return fmt::format("cr{}", id);
    case ZYDIS_REGCLASS_DEBUG:
      return fmt::format("dr{}", id);
    default:
      return fmt::format("?{}", ZydisRegisterGetString(r));
  }
}

std::string base_name(ZydisRegister r) {
  if (r == ZYDIS_REGISTER_NONE) return "-";
  if (r == ZYDIS_REGISTER_RIP || r == ZYDIS_REGISTER_EIP) return "ip";
  return fmt::format("{}", ZydisRegisterGetId(r));
}

u64 mask_to(u64 value, unsigned bytes) {
  return bytes >= 8 ? value : value & ((u64{1} << (8 * bytes)) - 1);
}

std::string zydis_operand(const ZydisDecodedInstruction& z, const ZydisDecodedOperand& op,
                          bool sized) {
  const bool lea = z.mnemonic == ZYDIS_MNEMONIC_LEA;  // has no segment there
  switch (op.type) {
    case ZYDIS_OPERAND_TYPE_REGISTER:
      return canonical_register(op.reg.value);
    case ZYDIS_OPERAND_TYPE_MEMORY: {
      const unsigned address_bytes = z.address_width / 8;
      const bool has_index = op.mem.index != ZYDIS_REGISTER_NONE;
      return fmt::format("m{}[{}:{}+{}*{}+{:x}]", sized ? op.size / 8 : 0,
                         lea ? 0 : ZydisRegisterGetId(op.mem.segment), base_name(op.mem.base),
                         base_name(op.mem.index), has_index ? std::max<int>(op.mem.scale, 1) : 1,
                         mask_to(static_cast<u64>(op.mem.disp.value), address_bytes));
    }
    case ZYDIS_OPERAND_TYPE_POINTER:
      return fmt::format("far {:x}:{:x}", op.ptr.segment, op.ptr.offset);
    case ZYDIS_OPERAND_TYPE_IMMEDIATE: {
      const bool relative = op.imm.is_relative;
      return fmt::format("{}{:x}", relative ? "rel " : "",
                         mask_to(op.imm.value.u, relative ? 8 : z.operand_width / 8));
    }
    default:
      return "?";
  }
}

std::string our_operand(const Instruction& i, const Operand& op, unsigned imm_index, bool sized,
                        unsigned width) {
  switch (op.kind) {
    case OperandKind::kGpr:
      return fmt::format("r{}.{}", op.reg, op.size);
    case OperandKind::kGprHigh8:
      return fmt::format("h{}", op.reg);
    case OperandKind::kX87:
      return fmt::format("st{}", op.reg);
    case OperandKind::kMmx:
      return fmt::format("mm{}", op.reg);
    case OperandKind::kXmm:
      return fmt::format("xmm{}", op.reg);
    case OperandKind::kSegment:
      return fmt::format("seg{}", op.reg);
    case OperandKind::kControl:
      return fmt::format("cr{}", op.reg);
    case OperandKind::kDebug:
      return fmt::format("dr{}", op.reg);
    case OperandKind::kFarPointer:
      return fmt::format("far {:x}:{:x}", i.immediate2, i.immediate);
    case OperandKind::kRelative:
      return fmt::format("rel {:x}", i.immediate);
    case OperandKind::kImmediate:
      return fmt::format("{:x}", mask_to(imm_index == 0 ? i.immediate : i.immediate2, width));
    case OperandKind::kMemory: {
      const auto name = [](u8 r) {
        return r == cpu::kNoRegister ? "-" : r == cpu::kRipRegister ? "ip" : fmt::format("{}", r);
      };
      const u64 displacement =
          i.memory.absolute64 ? i.immediate2 : static_cast<u64>(i64{i.memory.displacement});
      return fmt::format("m{}[{}:{}+{}*{}+{:x}]", sized ? op.size : 0,
                         i.opcode == Opcode::kLea ? 0 : i.memory.segment, name(i.memory.base),
                         name(i.memory.index), 1 << i.memory.scale,
                         mask_to(displacement, i.address_size));
    }
    case OperandKind::kNone:
      return "none";
  }
  return "?";
}

// Operands that one of the two lists and the other takes as implied, or memory whose size Zydis
// tells in another way.
bool operands_differ_by_design(const std::string& name) {
  static const std::set<std::string> kNames = {
      "movs",   "cmps",    "stos",     "lods",     "scas",       "ins",     "outs",
      "xlat",   "nop",     "pause",    "maskmovq", "maskmovdqu", "fxch",    "fcom",
      "fcomp",  "fucom",   "fucomp",   "fld",      "fst",        "fstp",    "fild",
      "fist",   "fistp",   "fisttp",   "ficom",    "ficomp",     "fbld",    "fbstp",
      "fcompp", "fucompp", "fadd",     "fmul",     "fsub",       "fsubr",   "fdiv",
      "fdivr",  "fiadd",   "fimul",    "fisub",    "fisubr",     "fidiv",   "fidivr",
      "lar",    "lsl",     "pblendvb", "blendvps", "blendvpd",   "monitor", "mwait"};
  return kNames.contains(name);
}

bool size_differs_by_design(const std::string& name) {
  static const std::set<std::string> kNames = {
      "lea",    "invlpg", "prefetch", "clflush", "xsave",  "xrstor", "xsaveopt",
      "xsavec", "xsaves", "xrstors",  "lgdt",    "lidt",   "sgdt",   "sidt",
      "bound",  "fldenv", "fnstenv",  "frstor",  "fnsave", "nop"};
  return kNames.contains(name);
}

std::string zydis_text(const ZydisDecodedInstruction& z, const ZydisDecodedOperand* operands,
                       const std::string& name) {
  std::string text = name;
  if (operands_differ_by_design(name)) return text;
  for (unsigned i = 0; i < z.operand_count_visible; ++i)
    text += " " + zydis_operand(z, operands[i], !size_differs_by_design(name));
  return text;
}

std::string our_text(const Instruction& i, unsigned width) {
  std::string name = lower(cpu::opcode_name(i.opcode));
  const bool sized = !size_differs_by_design(name);
  const bool plain = operands_differ_by_design(name);
  if (name == "jcc" || name == "setcc" || name == "cmovcc" || name == "fcmovcc")
    name += std::to_string(i.condition);
  if (plain) return name;
  unsigned immediates = 0;
  for (unsigned n = 0; n < i.operand_count; ++n) {
    const Operand& op = i.operands[n];
    name += " " + our_operand(i, op, immediates, sized, width);
    if (op.kind == OperandKind::kImmediate) ++immediates;
  }
  return name;
}

const ZydisDecoder& decoder_for(cpu::CodeSize size) {
  static const auto make = [](ZydisMachineMode mode, ZydisStackWidth width) {
    ZydisDecoder d;
    ZydisDecoderInit(&d, mode, width);
    ZydisDecoderEnableMode(&d, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
    ZydisDecoderEnableMode(&d, ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
    ZydisDecoderEnableMode(&d, ZYDIS_DECODER_MODE_CLDEMOTE, ZYAN_FALSE);
    return d;
  };
  static const ZydisDecoder decoders[3] = {make(ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16),
                                           make(ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32),
                                           make(ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64)};
  return decoders[static_cast<unsigned>(size)];
}

// Where the two differ and we are sure of ours.
bool is_known_difference(const Instruction& ours, const ZydisDecodedInstruction& z) {
  // Zydis 4.0 takes R13 for the base of a SIB byte without base when REX.B and 67 are there (SDM
  // vol. 2, table 2-5: B does not matter to that).
  if ((z.attributes & ZYDIS_ATTRIB_HAS_MODRM) != 0 && z.raw.modrm.mod == 0 && z.raw.modrm.rm == 4 &&
      z.raw.sib.base == 5 && z.raw.rex.B == 1 && z.length == ours.length)
    return true;
  // MOVSXD r16: the source has four bytes on AMD's processors (a page's end shows it), in registers
  // too.
  if (z.mnemonic == ZYDIS_MNEMONIC_MOVSXD && ours.operand_size == 2 && !ours.has_modrm_memory)
    return true;
  // The upper half of MOVMSK's result is zero whatever REX.W says.
  if (z.mnemonic == ZYDIS_MNEMONIC_MOVMSKPS || z.mnemonic == ZYDIS_MNEMONIC_MOVMSKPD) return true;
  // F3 with REX.B and 90 exchanges with R8; it is not PAUSE.
  return z.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && z.opcode == 0x90 && z.raw.rex.B == 1;
}

}  // namespace

std::string hex(const u8* bytes, unsigned count) {
  std::string out;
  for (unsigned i = 0; i < count; ++i) out += fmt::format("{}{:02x}", i == 0 ? "" : " ", bytes[i]);
  return out;
}

std::string compare_with_oracle(const u8* bytes, cpu::CodeSize size) {
  ZydisDecodedInstruction z;
  ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
  const ZyanStatus status = ZydisDecoderDecodeFull(&decoder_for(size), bytes, 15, &z, operands);
  Instruction ours;
  const cpu::DecodeStatus our_status = cpu::decode(bytes, 15, {.code_size = size}, ours);
  const bool we_are_valid = our_status == cpu::DecodeStatus::kOk && ours.opcode != Opcode::kInvalid;
  std::string theirs = "invalid";
  bool known = false;
  if (ZYAN_SUCCESS(status)) {
    const std::string name = canonical_name(z, operands);
    std::string stem = name;
    for (std::string_view s : {"fcmovcc", "cmovcc", "setcc", "jcc"})
      if (name.starts_with(s)) stem = s;
    known = our_names().contains(stem);
    theirs = zydis_text(z, operands, name);
  }
  if (!known && !we_are_valid) return {};
  const unsigned width = ZYAN_SUCCESS(status) ? z.operand_width / 8u : 8;
  const std::string mine = we_are_valid ? our_text(ours, width) : "invalid";
  const bool same_length = !known || !we_are_valid || z.length == ours.length;
  if (mine == theirs && same_length) return {};
  if (we_are_valid && ZYAN_SUCCESS(status) && is_known_difference(ours, z)) return {};
  return fmt::format("{} ({} bit): ours '{}' length {}, oracle '{}' length {}",
                     hex(bytes, we_are_valid ? ours.length : 15), 16 << static_cast<unsigned>(size),
                     mine, ours.length, theirs, ZYAN_SUCCESS(status) ? z.length : 0);
}

}  // namespace smol::isa

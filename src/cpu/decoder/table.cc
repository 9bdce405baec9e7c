// From rows to lookup tables, at compile time. Three levels keep the tables small (about 80 KB, of
// which a program's instructions touch few lines) and the common case one load: the opcode byte
// alone decides; where it does not, ModRM's mod and reg do; in a few places (0F 01, x87) rm as
// well.
#include "cpu/decoder/table.h"

namespace smol::cpu::table {
namespace {

namespace need {
using enum Feature;
}
using enum Opcode;

constexpr Row kRows[] = {
#include "cpu/decoder/table_integer.inc"
#include "cpu/decoder/table_mmx.inc"
#include "cpu/decoder/table_sse.inc"
#include "cpu/decoder/table_sse4.inc"
#include "cpu/decoder/table_system.inc"
#include "cpu/decoder/table_x87.inc"
};
constexpr unsigned kRowCount = sizeof(kRows) / sizeof(kRows[0]);
static_assert(kRowCount < Tables::kMaxEntries);

constexpr bool uses_modrm(const Row& row) {
  if (row.form.kind != Form::kNone) return true;
  for (Spec spec : row.operands)
    if (spec != kNoOperand && spec <= kLastModrmSpec) return true;
  return false;
}

constexpr bool is_byte_spec(Spec spec) {
  return spec == Eb || spec == Gb || spec == AL || spec == Zb || spec == Ob || spec == Mb;
}

constexpr Entry make_entry(const Row& row) {
  Entry entry{row.opcode, {}, row.feature, 0, row.flags};
  for (unsigned i = 0; i < 4; ++i) {
    entry.operands[i] = row.operands[i];
    if (row.operands[i] != kNoOperand) entry.operand_count = static_cast<u8>(i + 1);
  }
  if (uses_modrm(row)) entry.flags |= kModrm;
  if (is_byte_spec(row.operands[0])) entry.flags |= kByteOp;
  if (row.prefix != kAny) entry.flags |= kExactPrefix;
  return entry;
}

// Which of the 16 (mod == 3, reg) classes the form takes.
constexpr bool takes(Form form, unsigned modreg) {
  const bool is_register = modreg >= 8;
  const unsigned reg_field = modreg & 7;
  switch (form.kind) {
    case Form::kNone:
      return true;
    case Form::kMemory:
      return !is_register && (form.value == 0xff || form.value == reg_field);
    case Form::kRegister:
      return is_register && (form.value == 0xff || form.value == reg_field);
    case Form::kEither:
      return form.value == reg_field;
    case Form::kExact:
      return is_register && ((form.value >> 3) & 7) == reg_field;
  }
  return false;
}

constexpr void fill(u16& slot, u16 value) {
  if (slot == 0) slot = value;
}

// Enters the row where nothing has been entered yet, so rows that name a prefix must come before
// those that do not.
constexpr void enter(Tables& tables, u16& slot, const Row& row, u16 value) {
  if (row.form.kind == Form::kNone && (slot & kGroupBit) == 0) {
    fill(slot, value);
    return;
  }
  if (slot != 0 && (slot & kGroupBit) == 0) return;
  if (slot == 0) slot = static_cast<u16>(kGroupBit | tables.group_count++);
  u16* group = tables.groups[slot & ~kGroupBit];
  for (unsigned modreg = 0; modreg < 16; ++modreg) {
    if (!takes(row.form, modreg)) continue;
    if (row.form.kind != Form::kExact) {
      fill(group[modreg], value);
      continue;
    }
    if (group[modreg] == 0) group[modreg] = static_cast<u16>(kGroupBit | tables.rm_group_count++);
    fill(tables.rm_groups[group[modreg] & ~kGroupBit][row.form.value & 7], value);
  }
}

constexpr void enter_row(Tables& tables, unsigned mode64, unsigned prefix, unsigned index) {
  const Row& row = kRows[index];
  const unsigned span = (row.flags & kSpan16) != 0 ? 16 : (row.flags & kSpan8) != 0 ? 8 : 1;
  for (unsigned i = 0; i < span; ++i)
    enter(tables, tables.slots[mode64][row.map][prefix][row.opcode_byte + i], row,
          static_cast<u16>(index + 1));
}

constexpr Tables build() {
  Tables tables{};
  tables.entry_count = kRowCount;
  for (unsigned i = 0; i < kRowCount; ++i) tables.entries[i] = make_entry(kRows[i]);
  for (unsigned mode64 = 0; mode64 < 2; ++mode64) {
    for (unsigned pass = 0; pass < 2; ++pass) {  // rows with a mandatory prefix first
      for (unsigned i = 0; i < kRowCount; ++i) {
        const Row& row = kRows[i];
        if ((row.prefix == kAny) != (pass == 1)) continue;
        if ((row.flags & kW1) != 0 || (row.flags & (mode64 != 0 ? kI64 : kO64)) != 0) continue;
        if (row.prefix != kAny) {
          enter_row(tables, mode64, row.prefix, i);
        } else {
          for (unsigned p = 0; p < (row.map == kOne ? 1 : kPrefixCount); ++p)
            enter_row(tables, mode64, p, i);
        }
      }
    }
  }
  return tables;
}

}  // namespace

constinit const Tables kTables = build();

std::span<const Row> rows() { return kRows; }

}  // namespace smol::cpu::table

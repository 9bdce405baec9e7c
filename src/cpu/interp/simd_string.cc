// The SSE4.2 string instructions. Rare enough that one plain implementation of the SDM's
// description serves every host.
#include "cpu/interp/simd_string.h"

#include <algorithm>

#include "cpu/interp/simd_handlers.h"

namespace smol::cpu::simd {
namespace {

enum class Aggregation : u8 { kEqualAny, kRanges, kEqualEach, kEqualOrdered };

// Elements as integers, by the control's bits 0-1: unsigned or signed, bytes or words.
i32 element_at(Vec v, u32 i, u8 control) {
  switch (control & 3) {
    case 0:
      return Lanes<u8>(v)[i];
    case 1:
      return Lanes<u16>(v)[i];
    case 2:
      return Lanes<i8>(v)[i];
    default:
      return Lanes<i16>(v)[i];
  }
}
u32 count_of(u8 control) { return control & 1 ? 8 : 16; }

// IntRes1, bit j, by the aggregation. What lies behind the end of a string compares as table 4-4
// says: never equal for "any" and "ranges"; equal when both ended for "each"; a match when the
// pattern (a) ended for "ordered".
bool result_bit(Vec a, u32 length_a, Vec b, u32 length_b, u8 control, u32 j) {
  const u32 count = count_of(control);
  switch (static_cast<Aggregation>(control >> 2 & 3)) {
    case Aggregation::kEqualAny:
      if (j >= length_b) return false;
      for (u32 i = 0; i < length_a; ++i)
        if (element_at(a, i, control) == element_at(b, j, control)) return true;
      return false;
    case Aggregation::kRanges:
      if (j >= length_b) return false;
      for (u32 i = 0; i + 1 < length_a; i += 2) {
        const i32 value = element_at(b, j, control);
        if (value >= element_at(a, i, control) && value <= element_at(a, i + 1, control))
          return true;
      }
      return false;
    case Aggregation::kEqualEach:
      if (j >= length_a || j >= length_b) return j >= length_a && j >= length_b;
      return element_at(a, j, control) == element_at(b, j, control);
    default:
      for (u32 i = 0; i + j < count; ++i) {
        if (i >= length_a) return true;
        if (i + j >= length_b || element_at(a, i, control) != element_at(b, i + j, control))
          return false;
      }
      return true;
  }
}

}  // namespace

StringCompare compare_strings(Vec a, u32 length_a, Vec b, u32 length_b, u8 control) {
  StringCompare out;
  out.count = count_of(control);
  for (u32 j = 0; j < out.count; ++j)
    if (result_bit(a, length_a, b, length_b, control, j)) out.bits |= 1u << j;
  const u32 all = (1u << out.count) - 1;
  if ((control >> 4 & 3) == 1) out.bits ^= all;
  if ((control >> 4 & 3) == 3) out.bits ^= (1u << length_b) - 1;  // only valid elements of b
  if (out.bits) out.flags |= kFlagCf;
  if (length_b < out.count) out.flags |= kFlagZf;
  if (length_a < out.count) out.flags |= kFlagSf;
  if (out.bits & 1) out.flags |= kFlagOf;
  return out;
}

u32 string_length(Vec v, u8 control) {
  const u32 count = count_of(control);
  for (u32 i = 0; i < count; ++i)
    if (element_at(v, i, control) == 0) return i;
  return count;
}

u32 clamp_length(u64 value, bool wide, u8 control) {
  const i64 length = wide ? static_cast<i64>(value) : static_cast<i32>(value);
  const u64 magnitude = length < 0 ? 0 - static_cast<u64>(length) : static_cast<u64>(length);
  return static_cast<u32>(std::min<u64>(magnitude, count_of(control)));
}

u32 string_index(const StringCompare& result, u8 control) {
  if (result.bits == 0) return result.count;
  return static_cast<u32>(control & 0x40 ? 31 - std::countl_zero(result.bits)
                                         : std::countr_zero(result.bits));
}

Vec string_mask(const StringCompare& result, u8 control) {
  if (!(control & 0x40)) return Vec{result.bits, 0};
  if (result.count == 16) return build<u8>([&](u32 i) { return result.bits >> i & 1 ? -1 : 0; });
  return build<u16>([&](u32 i) { return result.bits >> i & 1 ? -1 : 0; });
}

namespace {

// aux: bit 0 explicit lengths, bit 1 mask result, bit 2 64-bit lengths.
constexpr u8 kExplicit = 1, kMaskResult = 2, kWideLengths = 4;

void finish(Cpu* cpu, const Op* op, Vec b) {
  const Vec a = xmm(cpu, op->dst);
  const u8 control = static_cast<u8>(op->immediate);
  const bool wide = (op->aux & kWideLengths) != 0;
  const u32 length_a =
      op->aux & kExplicit ? clamp_length(cpu->gpr[kRax], wide, control) : string_length(a, control);
  const u32 length_b =
      op->aux & kExplicit ? clamp_length(cpu->gpr[kRdx], wide, control) : string_length(b, control);
  const StringCompare result = compare_strings(a, length_a, b, length_b, control);
  if (op->aux & kMaskResult)
    set_xmm(cpu, 0, string_mask(result, control));
  else
    cpu->gpr[kRcx] = string_index(result, control);
  set_arithmetic_flags(*cpu, result.flags);
}
SMOL_HANDLER(pcmpstr_rr) {
  finish(cpu, op, xmm(cpu, op->src));
  SMOL_NEXT;
}
template <bool kFlat>
SMOL_HANDLER(pcmpstr_rm) {
  Vec b;
  if (!read_operand(cpu, op, kFlat, false, &b, 16)) SMOL_UNWIND;
  finish(cpu, op, b);
  SMOL_NEXT;
}
constexpr Forms kForms = {pcmpstr_rr, pcmpstr_rm<true>, pcmpstr_rm<false>};

bool use_string(const Request& request, u8 aux) {
  request.out.op.aux = aux | (request.instruction.operand_size == 8 ? kWideLengths : u8{0});
  return request.use(kForms);
}

}  // namespace

bool lower_strings(const Request& request) {
  switch (request.instruction.opcode) {
    case Opcode::kPcmpestri:
      return use_string(request, kExplicit);
    case Opcode::kPcmpestrm:
      return use_string(request, kExplicit | kMaskResult);
    case Opcode::kPcmpistri:
      return use_string(request, 0);
    case Opcode::kPcmpistrm:
      return use_string(request, kMaskResult);
    default:
      return false;
  }
}

}  // namespace smol::cpu::simd

// What the files of the software x87 unit share: 80-bit values as numbers of soft_float.h, and
// x87's NaN rules.
#pragma once

#include "cpu/interp/soft_float.h"
#include "cpu/interp/x87_unit.h"

namespace smol::cpu::x87::soft {

using softfloat::Kind;
using softfloat::Mode;
using softfloat::Number;
using softfloat::Wide;

inline Mode mode_of(u16 control) { return static_cast<Mode>(control >> 10 & 3); }

Number unpack(const Float80& value);
Float80 pack(const softfloat::Rounded& rounded);
// Rounds to 64 bits of significand (or `precision`), with the scaled result of an unmasked overflow
// or underflow.
Float80 finish(const Wide& wide, u16 control, u16& status, u32 precision = 64);

inline Float80 make_zero(bool sign) {
  return {.significand = 0, .sign_exponent = static_cast<u16>(sign << 15)};
}
inline Float80 make_infinity(bool sign) {
  return {.significand = u64{1} << 63, .sign_exponent = static_cast<u16>(sign << 15 | 0x7fff)};
}
inline Float80 invalid(u16& status) {
  status |= kInvalid;
  return kIndefinite;
}
inline Float80 quieted(const Float80& nan) {
  return {.significand = nan.significand | u64{1} << 62, .sign_exponent = nan.sign_exponent};
}

// Operands that are not numbers: true with the result when there is one (SDM vol. 1, table 4-7: of
// two NaNs of a kind the larger significand, a quiet one before a signalling one; unsupported
// encodings are invalid).
bool special_operand(const Float80& a, const Number& x, u16& status, Float80& result);
bool special_operands(const Float80& a, const Number& x, const Float80& b, const Number& y,
                      u16& status, Float80& result);

}  // namespace smol::cpu::x87::soft

// The arithmetic of the x87 unit as functions on 80-bit values: what the handlers in x87_*.cc stand
// on.
//
// Two units have this interface. x87_host runs the host's own x87 unit (x86-64 hosts) under the
// control word that load_guest_x87_control loaded, all exceptions masked; x87_soft computes in
// integers, for other hosts and for the one thing that a masked unit cannot give, the scaled result
// of an unmasked overflow or underflow. `unit` is the one in use.
//
// control: the guest's control word; status: or'ed into are IE DE ZE OE UE PE (bits 0-5), C0 C1 C2
// C3 (bits 8 9 10 14) where the instruction defines them. Results are those of masked responses.
// Source: SDM vol. 1 chapter 8.
#pragma once

#include "cpu/state/cpu.h"

namespace smol::cpu::x87 {

inline constexpr u16 kInvalid = 1, kDenormal = 2, kZeroDivide = 4, kOverflow = 8, kUnderflow = 16,
                     kPrecision = 32, kStackFault = 64;
inline constexpr u16 kC0 = 1 << 8, kC1 = 1 << 9, kC2 = 1 << 10, kC3 = 1 << 14;
inline constexpr u16 kConditions = kC0 | kC1 | kC2 | kC3;

enum class Arith : u8 {
  kAdd,
  kMul,
  kSub,
  kSubr,
  kDiv,
  kDivr
};  // destination OP source; the R forms reversed
// One operand, one result.
enum class Unary : u8 { kSqrt, kRndint, k2xm1, kSin, kCos };
// a: ST(0), b: ST(1). Scale and the remainders replace ST(0); the others replace ST(1) and pop.
enum class Binary : u8 { kScale, kPrem, kPrem1, kYl2x, kYl2xp1, kPatan };
// One operand, two results: `first` replaces ST(0), `second` is pushed. With C2 set (operand out of
// range) nothing changes.
enum class Double : u8 { kXtract, kPtan, kSincos };
enum class Constant : u8 { kOne, kL2t, kL2e, kPi, kLg2, kLn2, kZero };

struct Two {
  Float80 first, second;
};

inline constexpr Float80 kIndefinite = {.significand = 0xc000000000000000, .sign_exponent = 0xffff};

#define SMOL_X87_UNIT_INTERFACE                                                                   \
  Float80 arith(Arith operation, const Float80& a, const Float80& b, u16 control, u16& status);   \
  Float80 unary(Unary operation, const Float80& a, u16 control, u16& status);                     \
  Float80 binary(Binary operation, const Float80& a, const Float80& b, u16 control, u16& status); \
  Two two(Double operation, const Float80& a, u16 control, u16& status);                          \
  /* C3 C2 C0; quiet: only signalling NaNs are invalid. */                                        \
  void compare(const Float80& a, const Float80& b, bool quiet, u16& status);                      \
  Float80 constant(Constant which, u16 control);                                                  \
  Float80 from_f32(u32 value, u16& status);                                                       \
  Float80 from_f64(u64 value, u16& status);                                                       \
  Float80 from_integer(i64 value);                                                                \
  Float80 from_bcd(const u8* from); /* 10 bytes */                                                \
  u32 to_f32(const Float80& a, u16 control, u16& status);                                         \
  u64 to_f64(const Float80& a, u16 control, u16& status);                                         \
  /* bits: 16, 32, 64; what does not fit gives the integer indefinite value. */                   \
  i64 to_integer(const Float80& a, u32 bits, bool truncate, u16 control, u16& status);            \
  void to_bcd(const Float80& a, u8* into, u16 control, u16& status);

namespace host {
SMOL_X87_UNIT_INTERFACE
}
namespace soft {
SMOL_X87_UNIT_INTERFACE
}
#undef SMOL_X87_UNIT_INTERFACE

#if defined(__x86_64__) && !defined(SMOL_SOFT_X87)
inline constexpr bool kHostUnit = true;
namespace unit = host;
#else
inline constexpr bool kHostUnit = false;
namespace unit = soft;
#endif

}  // namespace smol::cpu::x87

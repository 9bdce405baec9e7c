// The host's x87 unit by inline assembly. Each function clears the host's flags, loads its operands
// on the (empty) host stack, runs the instruction, reads the status word and leaves the stack empty
// again. The register forms of subtract and divide are given by opcode bytes: assemblers disagree
// about their names.
#include "cpu/interp/x87_unit.h"

#if defined(__x86_64__)

namespace smol::cpu::x87::host {
namespace {

constexpr u16 kReported = 0x3f | kConditions;

#define SMOL_X87_ONE(text)                                                     \
  asm volatile("fnclex\n\tfldt %[a]\n\t" text "\n\tfnstsw %[sw]\n\tfstpt %[r]" \
               : [r] "=m"(result), [sw] "=&a"(word)                            \
               : [a] "m"(a))
#define SMOL_X87_TWO(text, after)                                                                 \
  asm volatile("fnclex\n\tfldt %[b]\n\tfldt %[a]\n\t" text "\n\tfnstsw %[sw]\n\tfstpt %[r]" after \
               : [r] "=m"(result), [sw] "=&a"(word)                                               \
               : [a] "m"(a), [b] "m"(b))

}  // namespace

// Both on the stack: ST(1) = a, ST(0) = b, then the popping form, whose destination is ST(1).
Float80 arith(Arith operation, const Float80& a, const Float80& b, u16, u16& status) {
  Float80 result;
  u16 word = 0;
#define SMOL_X87_ARITH(byte)                                           \
  asm volatile("fnclex\n\tfldt %[a]\n\tfldt %[b]\n\t.byte 0xde, " byte \
               "\n\tfnstsw %[sw]\n\tfstpt %[r]"                        \
               : [r] "=m"(result), [sw] "=&a"(word)                    \
               : [a] "m"(a), [b] "m"(b));                              \
  break
  switch (operation) {
    case Arith::kAdd:
      SMOL_X87_ARITH("0xc1");
    case Arith::kMul:
      SMOL_X87_ARITH("0xc9");
    case Arith::kSubr:
      SMOL_X87_ARITH("0xe1");
    case Arith::kSub:
      SMOL_X87_ARITH("0xe9");
    case Arith::kDivr:
      SMOL_X87_ARITH("0xf1");
    case Arith::kDiv:
      SMOL_X87_ARITH("0xf9");
  }
#undef SMOL_X87_ARITH
  status |= word & (0x3f | kC1);
  return result;
}

Float80 unary(Unary operation, const Float80& a, u16, u16& status) {
  Float80 result;
  u16 word = 0;
  switch (operation) {
    case Unary::kSqrt:
      SMOL_X87_ONE("fsqrt");
      break;
    case Unary::kRndint:
      SMOL_X87_ONE("frndint");
      break;
    case Unary::k2xm1:
      SMOL_X87_ONE("f2xm1");
      break;
    case Unary::kSin:
      SMOL_X87_ONE("fsin");
      break;
    case Unary::kCos:
      SMOL_X87_ONE("fcos");
      break;
  }
  status |= word & (0x3f | kC1 | kC2);
  return result;
}

Float80 binary(Binary operation, const Float80& a, const Float80& b, u16, u16& status) {
  Float80 result;
  u16 word = 0;
  switch (operation) {
    case Binary::kScale:
      SMOL_X87_TWO("fscale", "\n\tfstp %%st(0)");
      break;
    case Binary::kPrem:
      SMOL_X87_TWO("fprem", "\n\tfstp %%st(0)");
      break;
    case Binary::kPrem1:
      SMOL_X87_TWO("fprem1", "\n\tfstp %%st(0)");
      break;
    case Binary::kYl2x:
      SMOL_X87_TWO("fyl2x", "");
      break;
    case Binary::kYl2xp1:
      SMOL_X87_TWO("fyl2xp1", "");
      break;
    case Binary::kPatan:
      SMOL_X87_TWO("fpatan", "");
      break;
  }
  const bool remainder = operation == Binary::kPrem || operation == Binary::kPrem1;
  status |= word & (remainder ? kReported : 0x3f | kC1);
  return result;
}

Two two(Double operation, const Float80& a, u16, u16& status) {
  Two result = {a, a};
  u16 word = 0;
// The instruction pushes unless C2 says that the operand is out of range.
#define SMOL_X87_PUSHES(text)                                                               \
  asm volatile("fnclex\n\tfldt %[a]\n\t" text                                               \
               "\n\tfnstsw %[sw]\n\ttest $0x400, %[sw]\n\tjne 1f\n\t"                       \
               "fstpt %[second]\n1:\n\tfstpt %[first]"                                      \
               : [first] "=m"(result.first), [second] "+m"(result.second), [sw] "=&a"(word) \
               : [a] "m"(a)                                                                 \
               : "cc");                                                                     \
  break
  switch (operation) {
    case Double::kXtract:
      asm volatile(
          "fnclex\n\tfldt %[a]\n\tfxtract\n\tfnstsw %[sw]\n\tfstpt %[second]\n\tfstpt %[first]"
          : [first] "=m"(result.first), [second] "=m"(result.second), [sw] "=&a"(word)
          : [a] "m"(a));
      word &= static_cast<u16>(~kC2);
      break;
    case Double::kPtan:
      SMOL_X87_PUSHES("fptan");
    case Double::kSincos:
      SMOL_X87_PUSHES("fsincos");
  }
#undef SMOL_X87_PUSHES
  status |= word & (0x3f | kC1 | kC2);
  return result;
}

void compare(const Float80& a, const Float80& b, bool quiet, u16& status) {
  u16 word;
  if (quiet)
    asm volatile("fnclex\n\tfldt %[b]\n\tfldt %[a]\n\tfucompp\n\tfnstsw %[sw]"
                 : [sw] "=&a"(word)
                 : [a] "m"(a), [b] "m"(b));
  else
    asm volatile("fnclex\n\tfldt %[b]\n\tfldt %[a]\n\tfcompp\n\tfnstsw %[sw]"
                 : [sw] "=&a"(word)
                 : [a] "m"(a), [b] "m"(b));
  status |= word & (0x3f | kC0 | kC2 | kC3);
}

Float80 constant(Constant which, u16) {
  Float80 result;
  switch (which) {
    case Constant::kOne:
      asm volatile("fld1\n\tfstpt %0" : "=m"(result));
      break;
    case Constant::kL2t:
      asm volatile("fldl2t\n\tfstpt %0" : "=m"(result));
      break;
    case Constant::kL2e:
      asm volatile("fldl2e\n\tfstpt %0" : "=m"(result));
      break;
    case Constant::kPi:
      asm volatile("fldpi\n\tfstpt %0" : "=m"(result));
      break;
    case Constant::kLg2:
      asm volatile("fldlg2\n\tfstpt %0" : "=m"(result));
      break;
    case Constant::kLn2:
      asm volatile("fldln2\n\tfstpt %0" : "=m"(result));
      break;
    case Constant::kZero:
      asm volatile("fldz\n\tfstpt %0" : "=m"(result));
      break;
  }
  return result;
}

Float80 from_f32(u32 value, u16& status) {
  Float80 result;
  u16 word;
  asm volatile("fnclex\n\tflds %[a]\n\tfnstsw %[sw]\n\tfstpt %[r]"
               : [r] "=m"(result), [sw] "=&a"(word)
               : [a] "m"(value));
  status |= word & 0x3f;
  return result;
}
Float80 from_f64(u64 value, u16& status) {
  Float80 result;
  u16 word;
  asm volatile("fnclex\n\tfldl %[a]\n\tfnstsw %[sw]\n\tfstpt %[r]"
               : [r] "=m"(result), [sw] "=&a"(word)
               : [a] "m"(value));
  status |= word & 0x3f;
  return result;
}
Float80 from_integer(i64 value) {
  Float80 result;
  asm volatile("fildll %[a]\n\tfstpt %[r]" : [r] "=m"(result) : [a] "m"(value));
  return result;
}
Float80 from_bcd(const u8* from) {
  Float80 result;
  struct Bcd {
    u8 bytes[10];
  } const* const bcd = reinterpret_cast<const Bcd*>(from);
  asm volatile("fbld %[a]\n\tfstpt %[r]" : [r] "=m"(result) : [a] "m"(*bcd));
  return result;
}

#define SMOL_X87_STORE(text)                                          \
  asm volatile("fnclex\n\tfldt %[a]\n\t" text " %[r]\n\tfnstsw %[sw]" \
               : [r] "=m"(result), [sw] "=&a"(word)                   \
               : [a] "m"(a));                                         \
  status |= word & (0x3f | kC1)

u32 to_f32(const Float80& a, u16, u16& status) {
  u32 result;
  u16 word;
  SMOL_X87_STORE("fstps");
  return result;
}
u64 to_f64(const Float80& a, u16, u16& status) {
  u64 result;
  u16 word;
  SMOL_X87_STORE("fstpl");
  return result;
}
i64 to_integer(const Float80& a, u32 bits, bool truncate, u16, u16& status) {
  u16 word;
  if (bits == 16) {
    i16 result;
    if (truncate) {
      SMOL_X87_STORE("fisttps");
    } else {
      SMOL_X87_STORE("fistps");
    }
    return result;
  }
  if (bits == 32) {
    i32 result;
    if (truncate) {
      SMOL_X87_STORE("fisttpl");
    } else {
      SMOL_X87_STORE("fistpl");
    }
    return result;
  }
  i64 result;
  if (truncate) {
    SMOL_X87_STORE("fisttpll");
  } else {
    SMOL_X87_STORE("fistpll");
  }
  return result;
}
void to_bcd(const Float80& a, u8* into, u16, u16& status) {
  struct Bcd {
    u8 bytes[10];
  } result;
  u16 word;
  SMOL_X87_STORE("fbstp");
  std::memcpy(into, &result, sizeof(result));
}

}  // namespace smol::cpu::x87::host

#endif

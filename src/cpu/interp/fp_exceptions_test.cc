// Floating-point exceptions that the guest has unmasked, and instructions that the guest's control
// registers forbid. Fixed vectors, on every host.
#include "cpu/interp/instruction_runner_test.h"

namespace smol::cpu {
namespace {

using test::InstructionRunner;
using test::MachineState;

class FpExceptions : public ::testing::Test {
 protected:
  FpExceptions() {
    base::store<u16>(state_.image, 0x37f);
    base::store<u32>(state_.image + 24, 0x1f80);
    state_.rsi = reinterpret_cast<u64>(state_.memory);
  }
  void set_xmm(u32 i, u64 low, u64 high = 0) {
    base::store<u64>(state_.image + 160 + 16 * i, low);
    base::store<u64>(state_.image + 168 + 16 * i, high);
  }
  void set_mxcsr(u32 value) { base::store<u32>(state_.image + 24, value); }
  u32 mxcsr() const { return base::load<u32>(state_.image + 24); }
  // Pushes in this order: the last is ST(0).
  void set_stack(std::initializer_list<Float80> values) {
    u32 top = 8 - static_cast<u32>(values.size()), i = static_cast<u32>(values.size());
    base::store<u16>(state_.image + 2, static_cast<u16>((top & 7) << 11));
    state_.image[4] = static_cast<u8>(0xff << top);
    for (const Float80& value : values) {
      --i;
      base::store<u64>(state_.image + 32 + 16 * i, value.significand);
      base::store<u16>(state_.image + 40 + 16 * i, value.sign_exponent);
    }
  }
  void set_control(u16 value) { base::store<u16>(state_.image, value); }
  u16 status() const { return base::load<u16>(state_.image + 2); }
  bool run(std::vector<u8> bytes) { return runner_.run_ours(bytes, state_); }
  void expect_fault(std::vector<u8> bytes, u8 vector) {
    EXPECT_FALSE(run(bytes)) << runner_.name();
    EXPECT_EQ(runner_.cpu().fault.vector, vector) << runner_.name();
  }

  InstructionRunner runner_;
  MachineState state_ = {};
};

constexpr u64 kOne = 0x3ff0000000000000;
const Float80 kOne80 = {.significand = u64{1} << 63, .sign_exponent = 0x3fff};
const Float80 kHuge80 = {.significand = u64{1} << 63, .sign_exponent = 0x7ffe};

TEST_F(FpExceptions, UnmaskedZeroDivideRaisesXmAndKeepsTheDestination) {
  set_xmm(0, kOne, 0x1234);
  set_mxcsr(0x1f80 & ~0x200u);
  expect_fault({0xf2, 0x0f, 0x5e, 0xc1}, kSimdError);
  EXPECT_EQ(mxcsr() & 0x3f, 4u);
  EXPECT_EQ(base::load<u64>(state_.image + 160), kOne);
  runner_.cpu().cr4 &= ~kCr4Osxmmexcpt;
  expect_fault({0xf2, 0x0f, 0x5e, 0xc1}, kInvalidOpcode);
}

TEST_F(FpExceptions, UnmaskedDenormalHidesInexact) {
  set_xmm(0, 1);  // smallest denormal
  set_xmm(1, kOne);
  set_mxcsr(0x1f80 & ~0x100u);
  expect_fault({0xf2, 0x0f, 0x58, 0xc1}, kSimdError);
  EXPECT_EQ(mxcsr() & 0x3f, 2u);
}

TEST_F(FpExceptions, UnmaskedUnderflowIsRaisedForExactResults) {
  set_xmm(0, 0x0010000000000000);  // smallest normal
  set_xmm(1, 0x3fe0000000000000);  // 0.5: the product is an exact denormal
  EXPECT_TRUE(run({0xf2, 0x0f, 0x59, 0xc1}));
  EXPECT_EQ(mxcsr() & 0x3f, 0u);
  set_xmm(0, 0x0010000000000000);
  set_mxcsr(0x1f80 & ~0x800u);
  expect_fault({0xf2, 0x0f, 0x59, 0xc1}, kSimdError);
  EXPECT_EQ(mxcsr() & 0x3f, 0x10u);
  // FTZ has no effect while underflow is unmasked.
  set_mxcsr(0x9f80 & ~0x800u);
  expect_fault({0xf2, 0x0f, 0x59, 0xc1}, kSimdError);
}

TEST_F(FpExceptions, ComparesAndConversionsRaiseToo) {
  set_xmm(0, 0x7ff0000000000001);
  set_mxcsr(0x1f80 & ~0x80u);
  state_.rflags = 0x202;
  expect_fault({0x66, 0x0f, 0x2e, 0xc1}, kSimdError);  // UCOMISD with a signalling NaN
  EXPECT_EQ(state_.rflags & kArithmeticFlags, 0u);
  set_xmm(1, 0x7ff0000000000000);
  state_.rax = 7;
  expect_fault({0xf2, 0x0f, 0x2c, 0xc1}, kSimdError);  // CVTTSD2SI of infinity
  EXPECT_EQ(state_.rax, 7u);
  set_mxcsr(0x1f80 & ~0x1000u);
  set_xmm(1, 0x3ff8000000000000);
  expect_fault({0xf2, 0x0f, 0x2d, 0xc1}, kSimdError);  // 1.5 is inexact
}

TEST_F(FpExceptions, ReservedMxcsrBitsAreGeneralProtection) {
  base::store<u32>(state_.memory, 0x00011f80);
  expect_fault({0x0f, 0xae, 0x16}, kGeneralProtection);
  EXPECT_EQ(mxcsr(), 0x1f80u);
  base::store<u32>(state_.memory + 24, 0x80001f80);
  expect_fault({0x0f, 0xae, 0x0e}, kGeneralProtection);  // FXRSTOR
}

TEST_F(FpExceptions, UnmaskedX87ExceptionIsReportedByTheNextWaitingInstruction) {
  set_stack({Float80{}, kOne80});  // ST(1) = 0, ST(0) = 1
  set_control(0x37b);
  EXPECT_TRUE(run({0xd8, 0xf1}));  // FDIV ST(0), ST(1)
  EXPECT_EQ(status() & 0x80ff, 0x8084);
  EXPECT_EQ(base::load<u64>(state_.image + 32), kOne80.significand);  // kept
  EXPECT_EQ(base::load<u16>(state_.image + 40), 0x3fff);
  expect_fault({0xd9, 0xc0}, kX87Error);        // FLD
  expect_fault({0x9b}, kX87Error);              // WAIT
  expect_fault({0x0f, 0x6f, 0xc1}, kX87Error);  // MOVQ MM0, MM1
  EXPECT_TRUE(run({0xdf, 0xe0}));               // FNSTSW does not wait
  EXPECT_EQ(state_.rax & 0xff, 0x84u);
  EXPECT_TRUE(run({0xdb, 0xe2}));  // FNCLEX
  EXPECT_TRUE(run({0xd9, 0xc0}));
}

TEST_F(FpExceptions, UnmaskedX87OverflowDeliversTheScaledResult) {
  set_stack({kHuge80, kHuge80});
  set_control(0x377);
  EXPECT_TRUE(run({0xd8, 0xc9}));  // FMUL
  EXPECT_EQ(status() & 0x80ff, 0x8088);
  EXPECT_EQ(base::load<u16>(state_.image + 40), 0x5ffd);
}

TEST_F(FpExceptions, UnmaskedX87StoreLeavesMemory) {
  set_stack({kHuge80});
  set_control(0x377);
  base::store<u64>(state_.memory, 0x55);
  EXPECT_TRUE(run({0xdd, 0x1e}));  // FSTP m64: overflow
  EXPECT_EQ(base::load<u64>(state_.memory), 0x55u);
  EXPECT_EQ(status() >> 11 & 7, 7);  // not popped
}

TEST_F(FpExceptions, StackFaults) {
  set_stack({});
  EXPECT_TRUE(run({0xd9, 0xfa}));  // FSQRT of an empty register
  EXPECT_EQ(status() & 0x2ff, 0x41);
  EXPECT_EQ(base::load<u64>(state_.image + 32), 0xc000000000000000u);
  state_.image[4] = 0xff;
  EXPECT_TRUE(run({0xd9, 0xe8}));  // FLD1 onto a full stack
  EXPECT_EQ(status() & 0x2ff, 0x241);
  set_stack({});
  set_control(0x37e);
  EXPECT_TRUE(run({0xdd, 0x1e}));  // FSTP of an empty register, unmasked: no store, no pop
  EXPECT_EQ(status() & 0x80ff, 0x80c1);
  EXPECT_EQ(status() >> 11 & 7, 0);
}

TEST_F(FpExceptions, Availability) {
  Cpu& cpu = runner_.cpu();
  BlockMode& mode = runner_.mode();
  mode.fpu_trap = true;
  cpu.cr0 |= kCr0Ts | kCr0Mp;
  expect_fault({0xd9, 0xe8}, kDeviceNotAvailable);
  expect_fault({0x0f, 0x58, 0xc1}, kDeviceNotAvailable);
  expect_fault({0x0f, 0xfc, 0xc1}, kDeviceNotAvailable);
  expect_fault({0x0f, 0xae, 0x06}, kDeviceNotAvailable);  // FXSAVE
  expect_fault({0x9b}, kDeviceNotAvailable);
  cpu.cr0 = (cpu.cr0 & ~(kCr0Ts | kCr0Mp)) | kCr0Em;
  mode.sse_enabled = false;
  expect_fault({0xd9, 0xe8}, kDeviceNotAvailable);
  expect_fault({0x0f, 0x58, 0xc1}, kInvalidOpcode);
  expect_fault({0x0f, 0xfc, 0xc1}, kInvalidOpcode);
  cpu.cr0 &= ~kCr0Em;
  mode.fpu_trap = false;
  cpu.cr4 &= ~(kCr4Osfxsr | kCr4Osxsave);
  expect_fault({0x66, 0x0f, 0xfc, 0xc1}, kInvalidOpcode);
  expect_fault({0x0f, 0xae, 0x16}, kInvalidOpcode);  // LDMXCSR
  expect_fault({0x0f, 0xae, 0x26}, kInvalidOpcode);  // XSAVE
  EXPECT_TRUE(run({0x0f, 0xfc, 0xc1}));              // MMX does not need OSFXSR
}

TEST_F(FpExceptions, XrstorChecksItsHeader) {
  state_.rax = 3, state_.rdx = 0;
  base::store<u32>(state_.memory + 24, 0x1f80);
  EXPECT_TRUE(run({0x0f, 0xae, 0x2e}));
  base::store<u64>(state_.memory + 512, 4);
  expect_fault({0x0f, 0xae, 0x2e}, kGeneralProtection);
  base::store<u64>(state_.memory + 512, 3);
  base::store<u64>(state_.memory + 528, 1);
  expect_fault({0x0f, 0xae, 0x2e}, kGeneralProtection);
  base::store<u64>(state_.memory + 528, 0);
  base::store<u32>(state_.memory + 24, 0x1001f80);
  expect_fault({0x0f, 0xae, 0x2e}, kGeneralProtection);
  base::store<u32>(state_.memory + 24, 0x1f80);
  EXPECT_TRUE(run({0x0f, 0xae, 0x2e}));
  expect_fault({0x0f, 0xae, 0x6e, 0x10}, kGeneralProtection);  // not a multiple of 64
}

TEST_F(FpExceptions, EnvironmentLayouts) {
  set_stack({kOne80, Float80{}});
  EXPECT_TRUE(run({0xd9, 0x36}));  // FNSTENV, 32-bit
  EXPECT_EQ(base::load<u32>(state_.memory), 0xffff037fu);
  EXPECT_EQ(base::load<u32>(state_.memory + 4), 0xffff3000u);
  EXPECT_EQ(base::load<u32>(state_.memory + 8), 0xffff1fffu);  // R7 valid, R6 zero
  EXPECT_TRUE(run({0x66, 0xdd, 0x36}));                        // FNSAVE, 16-bit
  EXPECT_EQ(base::load<u16>(state_.memory + 4), 0x1fff);
  EXPECT_EQ(base::load<u64>(state_.memory + 14 + 10), kOne80.significand);
  EXPECT_EQ(state_.image[4], 0);
  EXPECT_TRUE(run({0x66, 0xdd, 0x26}));  // FRSTOR
  EXPECT_EQ(state_.image[4], 0xc0);
  EXPECT_EQ(status(), 0x3000);
  EXPECT_EQ(base::load<u64>(state_.image + 48), kOne80.significand);
}

}  // namespace
}  // namespace smol::cpu

// The XSAVE area: round trips, and on x86-64 hosts agreement with what the host's own FXSAVE writes
// and FXRSTOR takes.
#include "cpu/interp/fpu_state.h"

#include <gtest/gtest.h>

#include <memory>

#include "cpu/interp/host_fp.h"

namespace smol::cpu {
namespace {

void fill(Cpu& cpu) {
  for (u32 i = 0; i < 8; ++i) {
    cpu.x87.st[i].significand = 0x8000000000000000u + i * 0x123456789u;
    cpu.x87.st[i].sign_exponent = static_cast<u16>(0x3fff + i);
  }
  for (u32 i = 0; i < 16; ++i) cpu.xmm[i].q[0] = i * 0x1111111111111111u, cpu.xmm[i].q[1] = ~u64{i};
  cpu.x87.top = 5;
  cpu.x87.empty = 0x1f;
  cpu.x87.control = 0x77f;
  cpu.x87.status = 0x4121;
  cpu.x87.last_instruction = 0x123456789abc;
  cpu.x87.last_data = 0x7fff00001234;
  cpu.mxcsr = 0xbf85;
}

TEST(FpuState, RoundTrip) {
  auto cpu = std::make_unique<Cpu>();
  auto other = std::make_unique<Cpu>();
  fill(*cpu);
  alignas(64) u8 area[kXsaveSize], again[kXsaveSize];
  to_xsave_area(*cpu, area);
  EXPECT_EQ(base::load<u16>(area), 0x77f);
  EXPECT_EQ(base::load<u16>(area + 2), 0x4121 | 5 << 11);
  EXPECT_EQ(area[4], 0xe0);
  EXPECT_EQ(base::load<u64>(area + 32), cpu->x87.st[5].significand);
  EXPECT_EQ(base::load<u32>(area + 28), 0xffffu);
  ASSERT_TRUE(from_xsave_area(*other, area));
  EXPECT_EQ(other->x87.top, 5);
  EXPECT_EQ(other->mxcsr, 0xbf85u);
  to_xsave_area(*other, again);
  EXPECT_EQ(std::memcmp(area, again, sizeof(area)), 0);
}

TEST(FpuState, InitialComponents) {
  auto cpu = std::make_unique<Cpu>();
  fill(*cpu);
  alignas(64) u8 area[kXsaveSize];
  to_xsave_area(*cpu, area);
  base::store<u64>(area + 512, 0);
  ASSERT_TRUE(from_xsave_area(*cpu, area));
  EXPECT_EQ(cpu->x87.control, 0x37f);
  EXPECT_EQ(cpu->x87.empty, 0xff);
  EXPECT_EQ(cpu->xmm[3].q[0], 0u);
  EXPECT_EQ(cpu->mxcsr, 0xbf85u);
}

TEST(FpuState, RefusesWhatItDoesNotHold) {
  auto cpu = std::make_unique<Cpu>();
  alignas(64) u8 area[kXsaveSize];
  to_xsave_area(*cpu, area);
  base::store<u64>(area + 512, 7);
  EXPECT_FALSE(from_xsave_area(*cpu, area));
  to_xsave_area(*cpu, area);
  base::store<u32>(area + 24, 0x11f80);
  EXPECT_FALSE(from_xsave_area(*cpu, area));
  to_xsave_area(*cpu, area);
  area[527] = 0x80;
  EXPECT_FALSE(from_xsave_area(*cpu, area));
}

TEST(FpuState, PendingUnmaskedExceptionSetsSummary) {
  X87State x87;
  x87.control = 0x37b;  // ZM clear
  set_x87_status_word(x87, 0x0004);
  EXPECT_EQ(x87_status_word(x87), 0x8084);
  x87.control = 0x37f;
  update_x87_summary(x87);
  EXPECT_EQ(x87_status_word(x87), 0x0004);
}

TEST(FpuState, TagWord) {
  X87State x87;
  x87.empty = 0xf0;
  x87.st[0] = {.significand = u64{1} << 63, .sign_exponent = 0x3fff};
  x87.st[1] = {};
  x87.st[2] = {.significand = u64{1} << 63, .sign_exponent = 0x7fff};
  x87.st[3] = {.significand = 1, .sign_exponent = 0};
  EXPECT_EQ(x87_tag_word(x87), 0xffa4);
  set_x87_tag_word(x87, 0xffa4);
  EXPECT_EQ(x87.empty, 0xf0);
}

#if defined(__x86_64__)
TEST(FpuState, AgreesWithTheHostsFxsave) {
  alignas(64) u8 host[kXsaveSize] = {}, ours[kXsaveSize], keep[512];
  asm volatile("fxsave64 (%0)" : : "r"(keep) : "memory");
  asm volatile("fninit; fldpi; fld1; fldz; fxsave64 (%0)" : : "r"(host) : "memory");
  asm volatile("fxrstor64 (%0)" : : "r"(keep) : "memory");
  base::store<u64>(host + 512, 3);
  for (u32 i = 416; i < 512; ++i) host[i] = 0;
  auto cpu = std::make_unique<Cpu>();
  ASSERT_TRUE(from_xsave_area(*cpu, host));
  EXPECT_EQ(cpu->x87.top, 5);
  EXPECT_EQ(x87_tag_word(cpu->x87), 0x07ff);
  to_xsave_area(*cpu, ours);
  base::store<u32>(host + 28, 0xffff);  // the host may have more MXCSR bits
  EXPECT_EQ(std::memcmp(host, ours, sizeof(ours)), 0);
}
#endif

}  // namespace
}  // namespace smol::cpu

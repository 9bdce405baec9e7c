// The native runner by itself: states go in and come out whole, faults are told apart, and a killed
// child is replaced.
#include "differential/native.h"

#include <gtest/gtest.h>

#include "differential/generator.h"
#include "machine/soft_machine.h"

namespace smol::isa {
namespace {

void put(NativeRunner& runner, u32 i, std::initializer_list<u8> code, const UserState& state) {
  NativeRequest& request = runner.request(i);
  request.state = state;
  request.size = static_cast<u32>(code.size());
  std::copy(code.begin(), code.end(), request.code);
}

TEST(NativeRunner, RunsAndReports) {
  auto made = NativeRunner::create();
  if (!made) GTEST_SKIP() << made.error().chain();
  NativeRunner& runner = **made;
  UserState state;
  for (unsigned r = 0; r < 16; ++r) state.gpr[r] = 0x1000 + r;
  state.gpr[4] = kData + 0x1000;
  base::store<u64>(state.xmm(3), 0x1122334455667788);
  put(runner, 0, {0x48, 0x01, 0xd8}, state);                 // add rax, rbx
  put(runner, 1, {0x48, 0x8b, 0x00}, state);                 // mov rax, [rax]: #PF
  put(runner, 2, {0x0f, 0x0b}, state);                       // ud2
  put(runner, 3, {0xb8, 0x27, 0, 0, 0, 0x0f, 0x05}, state);  // a system call: the child dies
  put(runner, 4, {0x64, 0xc7, 0x04, 0x25, 0, 0, 0, 0, 0x78, 0x56, 0x34, 0x12},
      state);                           // mov dword fs:[0], 0x12345678
  put(runner, 5, {0xeb, 0xfe}, state);  // an endless loop
  runner.start(6);
  runner.finish();
  const Outcome& sum = runner.answer(0).outcome;
  EXPECT_TRUE(sum.ended);
  EXPECT_EQ(sum.vector, 3);
  EXPECT_EQ(sum.state.gpr[0], 0x2003u);
  EXPECT_EQ(sum.state.rip, kCodePage + 4);
  EXPECT_EQ(sum.state.gpr[15], 0x100fu);
  EXPECT_EQ(base::load<u64>(sum.state.fx + 160 + 48), 0x1122334455667788u);
  const Outcome& fault = runner.answer(1).outcome;
  EXPECT_EQ(fault.vector, 14);
  EXPECT_EQ(fault.error_code, 4u);
  EXPECT_EQ(fault.address, 0x1000u);
  EXPECT_EQ(runner.answer(2).outcome.vector, 6);
  EXPECT_FALSE(runner.answer(3).outcome.ended);
  EXPECT_TRUE(runner.answer(4).outcome.ended);
  EXPECT_EQ(base::load<u32>(runner.answer(4).data + (kFsBase - kData)), 0x12345678u);
  EXPECT_FALSE(runner.answer(5).outcome.ended);
}

TEST(Generator, SequencesDecodeAndEnd) {
  auto made = NativeRunner::create();
  if (!made) GTEST_SKIP() << made.error().chain();
  NativeRunner& runner = **made;
  Generator generator(v2_features(), 5);
  u32 ended = 0, whole = 0, total = 0;
  for (int batch = 0; batch < 40; ++batch) {
    generator.fill_data(runner.data());
    for (u32 i = 0; i < kBatch; ++i) {
      const Sequence s = generator.sequence();
      const auto code = s.code();
      NativeRequest& request = runner.request(i);
      request.state = s.state;
      request.size = static_cast<u32>(code.size());
      std::memcpy(request.code, code.data(), code.size());
      ASSERT_LE(code.size(), kMaxCode);
    }
    runner.start(kBatch);
    runner.finish();
    for (u32 i = 0; i < kBatch; ++i) {
      ++total;
      ended += runner.answer(i).outcome.ended ? 1 : 0;
      whole += runner.answer(i).outcome.vector == 3 ? 1 : 0;
    }
  }
  EXPECT_GT(ended * 100, total * 99);  // next to none is a system call or an endless loop
  EXPECT_GT(whole * 100, total * 40);  // and enough of them run to their end
  RecordProperty("whole_percent", static_cast<int>(whole * 100 / total));
}

}  // namespace
}  // namespace smol::isa

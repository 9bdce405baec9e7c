// The data files on the host's own processor: they are only worth something if a real one agrees.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "data_runner.h"
#include "differential/native.h"

namespace smol::isa {
namespace {

void check_one(NativeRunner& runner, const DataTest& test) {
  std::memset(runner.data(), 0, kWritablePages * kPageSize);
  for (const auto& [at, bytes] : test.memory)
    std::copy(bytes.begin(), bytes.end(), runner.data() + (at - kData));
  NativeRequest& request = runner.request(0);
  request.state = test.in;
  request.size = static_cast<u32>(test.code.size());
  std::copy(test.code.begin(), test.code.end(), request.code);
  runner.start(1);
  runner.finish();
  const Outcome& outcome = runner.answer(0).outcome;
  EXPECT_EQ(failures(test, outcome, runner.answer(0).data), "") << test.place << ": " << test.name;
}

TEST(IsaDataNative, ProcessorAgrees) {
  auto made = NativeRunner::create();
  if (!made) GTEST_SKIP() << made.error().chain();
  for (const auto& entry : std::filesystem::directory_iterator(SMOL_ISA_DATA)) {
    if (entry.path().extension() != ".isa") continue;
    const auto loaded = load_data_tests(entry.path());
    ASSERT_TRUE(loaded.has_value()) << loaded.error().chain();
    for (const DataTest& test : *loaded) check_one(**made, test);
  }
}

}  // namespace
}  // namespace smol::isa

// A short run with a fixed seed; `isa_differential --sequences 1000000` is the long one.
#include "differential/fuzz.h"

#include <gtest/gtest.h>

namespace smol::isa {
namespace {

TEST(Differential, TwentyThousandSequences) {
  const auto result = fuzz({.sequences = 20000, .seed = 20241, .features = v2_features()});
  if (!result) GTEST_SKIP() << result.error().chain();
  EXPECT_EQ(result->mismatches, 0u) << result->report;
  EXPECT_EQ(result->sequences, 20000u);
  EXPECT_LT(result->skipped, 200u);
  EXPECT_GT(result->opcodes.size(), 400u);  // every family is drawn
}

TEST(Differential, TenThousandSequencesOf32BitCode) {
  const auto result =
      fuzz({.sequences = 10000, .seed = 20242, .features = v2_features(), .code32 = true});
  if (!result) GTEST_SKIP() << result.error().chain();
  EXPECT_EQ(result->mismatches, 0u) << result->report;
  EXPECT_LT(result->skipped, 100u);
  EXPECT_GT(result->opcodes.size(), 400u);
}

}  // namespace
}  // namespace smol::isa

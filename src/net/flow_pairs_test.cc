#include "net/flow_pairs.h"

#include <gtest/gtest.h>

#include <string>

namespace smol::net {
namespace {

ConstByteSpan bytes_of(const std::string& text) {
  return {reinterpret_cast<const u8*>(text.data()), text.size()};
}

const std::string kMacs(12, '\2');
std::string four(const std::string& source, const std::string& destination, const std::string& rest,
                 char fragment = 0, char protocol = 6) {
  return kMacs + std::string("\x08\0\x45\0\0\0\0\0", 8) + fragment + std::string("\0\x40", 2) +
         protocol + std::string(2, 0) + source + destination + rest;
}

TEST(FlowPairs, BothDirectionsAreOneFlow) {
  const u32 there = FlowPairs::hash(bytes_of(four("abcd", "efgh", "1234....")));
  EXPECT_EQ(there, FlowPairs::hash(bytes_of(four("efgh", "abcd", "3412...."))));
  EXPECT_NE(there, FlowPairs::hash(bytes_of(four("abcd", "efgh", "1235...."))));
  EXPECT_NE(there, FlowPairs::hash(bytes_of(four("abcd", "efgi", "1234...."))));
  EXPECT_NE(there, FlowPairs::hash(bytes_of(four("abcd", "efgh", "1234....", 0, 17))));
  // All pieces of a datagram, whatever stands where ports would.
  EXPECT_EQ(FlowPairs::hash(bytes_of(four("abcd", "efgh", "1234....", 0x20))),
            FlowPairs::hash(bytes_of(four("abcd", "efgh", "5678....", 0x20))));
  const auto six = [](const std::string& a, const std::string& b, const std::string& rest) {
    return kMacs + std::string("\x86\xdd\x60\0\0\0\0\x08\x11\x40", 10) + a + b + rest;
  };
  const std::string one(16, 'a'), two(16, 'b');
  EXPECT_EQ(FlowPairs::hash(bytes_of(six(one, two, "1234"))),
            FlowPairs::hash(bytes_of(six(two, one, "3412"))));
  EXPECT_NE(FlowPairs::hash(bytes_of(six(one, two, "1234"))),
            FlowPairs::hash(bytes_of(six(one, two, "1236"))));
}

TEST(FlowPairs, WhatIsCutOrOfAnotherKind) {
  const std::string whole = four("abcd", "efgh", "1234....");
  for (std::size_t size = 0; size < 34; ++size)
    EXPECT_EQ(FlowPairs::hash(bytes_of(whole).first(size)), 0u) << size;
  EXPECT_EQ(FlowPairs::hash(bytes_of(kMacs + std::string("\x08\6", 2) + std::string(40, 'x'))), 0u);
  EXPECT_EQ(FlowPairs::hash(bytes_of(kMacs + std::string("\x86\xdd\x60\0\0\0", 6) + "short")), 0u);
}

TEST(FlowPairs, TheLastSenderIsAnswered) {
  FlowPairs flows;
  const std::string there = four("abcd", "efgh", "1234...."),
                    back = four("efgh", "abcd", "3412....");
  flows.sent(bytes_of(there), 3);
  EXPECT_EQ(flows.pair_of(bytes_of(back), 4), 3);
  EXPECT_LT(flows.pair_of(bytes_of(back), 3), 3);
  EXPECT_EQ(flows.pair_of(bytes_of(back), 1), 0);
  flows.sent(bytes_of(there), 1);
  EXPECT_EQ(flows.pair_of(bytes_of(back), 4), 1);
  EXPECT_EQ(flows.pair_of(bytes_of(kMacs), 4), 0);
}

}  // namespace
}  // namespace smol::net

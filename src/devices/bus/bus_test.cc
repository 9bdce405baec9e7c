#include "devices/bus/bus.h"

#include <gtest/gtest.h>

namespace smol::devices {
namespace {

struct Echo : Device {
  std::string_view name() const override { return "echo"; }
  void read(u64 offset, ByteSpan data) override { data[0] = static_cast<u8>(offset); }
  void write(u64 offset, ConstByteSpan data) override { last = offset; }
  u64 last = 0;
};

TEST(Bus, FindsByAddressAndRefusesOverlap) {
  Bus bus("test");
  Echo one, two;
  ASSERT_TRUE(bus.add(0x10, 8, one));
  ASSERT_TRUE(bus.add(0x20, 8, two));
  EXPECT_FALSE(bus.add(0x17, 1, two));
  EXPECT_FALSE(bus.add(0x08, 9, two));
  EXPECT_FALSE(bus.add(0x30, 0, two));
  EXPECT_FALSE(bus.add(~u64{0}, 2, two));
  u8 byte = 0;
  EXPECT_TRUE(bus.read(0x13, {&byte, 1}));
  EXPECT_EQ(byte, 3);
  EXPECT_FALSE(bus.read(0x18, {&byte, 1}));
  EXPECT_EQ(byte, 0xff);
  u8 word[2] = {};
  EXPECT_FALSE(bus.write(0x17, word)) << "straddles the end";
  EXPECT_TRUE(bus.write(0x26, word));
  EXPECT_EQ(two.last, 6u);
}

}  // namespace
}  // namespace smol::devices

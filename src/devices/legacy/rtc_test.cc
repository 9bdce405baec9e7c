#include "devices/legacy/rtc.h"

#include <gtest/gtest.h>

#include "devices/legacy/fakes.h"

namespace smol::devices::legacy {
namespace {

using testing::Line;
using testing::read8;
using testing::write8;

constexpr u64 kSecond = 1000000000;

struct RtcTest : ::testing::Test {
  Line line;
  u64 now = u64{1772372645} * kSecond;  // Sunday 2026-03-01 13:44:05 UTC
  Rtc rtc{line, [this] { return now; }, 64 * kMiB};

  u8 get(u8 index) {
    write8(rtc, 0, index);
    return read8(rtc, 1);
  }
  void set(u8 index, u8 value) {
    write8(rtc, 0, index);
    write8(rtc, 1, value);
  }
};

TEST_F(RtcTest, TellsTheHostsTimeInBcd) {
  EXPECT_EQ(get(0), 0x05);
  EXPECT_EQ(get(2), 0x44);
  EXPECT_EQ(get(4), 0x13);
  EXPECT_EQ(get(6), 1);
  EXPECT_EQ(get(7), 0x01);
  EXPECT_EQ(get(8), 0x03);
  EXPECT_EQ(get(9), 0x26);
  EXPECT_EQ(get(0x32), 0x20);
  EXPECT_EQ(get(0x8d), 0x80) << "bit 7 of the index only masks NMI";
  EXPECT_EQ(get(0x0b), 0x02);
}

TEST_F(RtcTest, BinaryAndTwelveHours) {
  set(0x0b, 0x04);
  EXPECT_EQ(get(0), 5);
  EXPECT_EQ(get(2), 44);
  EXPECT_EQ(get(4), 0x81) << "1 pm";
  now += 11 * 3600 * kSecond;  // after midnight
  EXPECT_EQ(get(4), 12);
}

TEST_F(RtcTest, SettingTheTimeMovesIt) {
  set(0x0b, 0x82);
  set(0, 0x59);
  set(2, 0x59);
  set(4, 0x23);
  set(7, 0x31);
  set(8, 0x12);
  set(9, 0x99);
  now += 5 * kSecond;
  EXPECT_EQ(get(0), 0x59) << "held while SET is on";
  set(0x0b, 0x02);
  EXPECT_EQ(get(0), 0x59);
  now += kSecond;
  EXPECT_EQ(get(0), 0x00);
  EXPECT_EQ(get(8), 0x01);
  EXPECT_EQ(get(9), 0x00);
  EXPECT_EQ(get(0x32), 0x21);
}

TEST_F(RtcTest, NonsenseIsClamped) {
  for (const u8 value : {0x00, 0xff, 0x9a}) {
    for (const u8 index : {0, 2, 4, 6, 7, 8, 9, 0x32})
      set(static_cast<u8>(index), static_cast<u8>(value));
    const u8 month = get(8);
    EXPECT_GE(month, 1);
    EXPECT_LE(month, 0x12);
  }
}

TEST_F(RtcTest, UpdateInProgressJustBeforeTheSecond) {
  EXPECT_EQ(get(0x0a), 0x26);
  now += kSecond - 1000;
  EXPECT_EQ(get(0x0a), 0xa6);
}

TEST_F(RtcTest, UpdateEndedInterrupt) {
  set(0x0b, 0x12);
  EXPECT_EQ(*rtc.next_deadline(), now + kSecond);
  rtc.poll();
  EXPECT_FALSE(line.level);
  now += kSecond;
  rtc.poll();
  EXPECT_TRUE(line.level);
  EXPECT_FALSE(rtc.next_deadline()) << "one waits to be taken";
  EXPECT_EQ(get(0x0c) & 0x90, 0x90);
  EXPECT_FALSE(line.level);
  EXPECT_EQ(get(0x0c), 0);
}

TEST_F(RtcTest, AlarmWithDontCare) {
  get(0x0c);
  set(1, 0x10);
  set(3, 0xff);
  set(5, 0xff);
  set(0x0b, 0x22);
  now += 4 * kSecond;
  rtc.poll();
  EXPECT_FALSE(line.level);
  now += kSecond;
  rtc.poll();
  EXPECT_TRUE(line.level);
  EXPECT_EQ(get(0x0c) & 0xa0, 0xa0);
  now += 365 * 86400 * kSecond;  // a long sleep costs one day's search
  EXPECT_EQ(get(0x0c) & 0x20, 0x20);
}

TEST_F(RtcTest, PeriodicRate) {
  set(0x0b, 0x42);
  get(0x0c);
  const u64 deadline = *rtc.next_deadline();
  EXPECT_LE(deadline - now, kSecond / 1024 + 1);
  now = deadline;
  rtc.poll();
  EXPECT_TRUE(line.level);
  EXPECT_EQ(get(0x0c) & 0xc0, 0xc0);
  set(0x0a, 0x20);
  EXPECT_FALSE(rtc.next_deadline()) << "rate 0 is off";
}

TEST_F(RtcTest, MaskedFlagsAreReadableAndRaiseNothing) {
  now += kSecond;
  rtc.poll();
  EXPECT_FALSE(line.level);
  EXPECT_EQ(get(0x0c) & 0x90, 0x10) << "no IRQF without an enable";
}

TEST_F(RtcTest, MemorySizesAndRam) {
  EXPECT_EQ(get(0x30) | (get(0x31) << 8), 63 * 1024);
  EXPECT_EQ(get(0x34) | (get(0x35) << 8), 48 * 16);
  set(0x0f, 0x5a);
  EXPECT_EQ(get(0x0f), 0x5a);
}

}  // namespace
}  // namespace smol::devices::legacy

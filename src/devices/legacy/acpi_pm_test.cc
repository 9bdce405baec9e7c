#include "devices/legacy/acpi_pm.h"

#include <gtest/gtest.h>

#include "devices/legacy/fakes.h"

namespace smol::devices::legacy {
namespace {

using testing::Events;
using testing::Line;
using testing::read8;
using testing::write8;

struct AcpiPmTest : ::testing::Test {
  Events events;
  Line line;
  u64 now = 0;
  AcpiPm fixed{events, line, PowerButton::kFixed, [this] { return now; }};
  AcpiPm reduced{events, line, PowerButton::kEventDevice, [this] { return now; }};

  void write16(u64 offset, u16 value) { fixed.write(offset, base::bytes_of(value)); }
  u16 read16(u64 offset) {
    u16 value = 0;
    fixed.read(offset, base::bytes_of(value));
    return value;
  }
};

TEST_F(AcpiPmTest, SoftOffThroughEitherRegister) {
  write16(4, 0x2000 | (5 << 10));
  EXPECT_EQ(events.power_offs, 0) << "another sleep type";
  write16(4, 0x2001);
  EXPECT_EQ(events.power_offs, 1);
  EXPECT_EQ(read16(4) & 0x2000, 0) << "SLP_EN reads as 0";
  EXPECT_EQ(read16(4) & 1, 1) << "SCI_EN stays";
  write8(reduced, 0x10, 0x20);
  EXPECT_EQ(events.power_offs, 2);
  write8(reduced, 0x10, 0x20 | (5 << 2));
  EXPECT_EQ(events.power_offs, 2);
}

TEST_F(AcpiPmTest, FixedPowerButton) {
  fixed.press_power_button();
  EXPECT_FALSE(line.level) << "not enabled";
  write16(2, 0xffff);
  EXPECT_EQ(read16(2), 0x721);
  EXPECT_TRUE(line.level);
  EXPECT_EQ(read16(0), 0x100);
  write16(0, 0x0001);
  EXPECT_TRUE(line.level);
  write16(0, 0x0100);
  EXPECT_FALSE(line.level);
  EXPECT_EQ(read16(0), 0);
}

TEST_F(AcpiPmTest, EventDevicePowerButton) {
  reduced.press_power_button();
  EXPECT_EQ(line.pulses, 1);
  EXPECT_EQ(read8(reduced, 0x14), 1);
  EXPECT_EQ(read8(reduced, 0x14), 0) << "reading clears";
  EXPECT_EQ(read8(reduced, 0x11), 0);
}

TEST_F(AcpiPmTest, TimerCounts) {
  u32 value = 1;
  fixed.read(8, base::bytes_of(value));
  EXPECT_EQ(value, 0u);
  now = 1000000000;
  fixed.read(8, base::bytes_of(value));
  EXPECT_EQ(value, 3579545u);
  now = u64{2000} * 1000000000;  // wrapped
  fixed.read(8, base::bytes_of(value));
  EXPECT_EQ(value, static_cast<u32>(2000ull * 3579545ull));
  EXPECT_EQ(read8(fixed, 9), (value >> 8) & 0xff);
}

}  // namespace
}  // namespace smol::devices::legacy

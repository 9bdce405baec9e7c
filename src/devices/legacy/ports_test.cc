#include <gtest/gtest.h>

#include "devices/legacy/debug_ports.h"
#include "devices/legacy/fakes.h"
#include "devices/legacy/i8042.h"
#include "devices/legacy/pci_ports.h"

namespace smol::devices::legacy {
namespace {

using testing::Events;
using testing::read8;
using testing::write8;

TEST(I8042, PulsesReset) {
  Events events;
  I8042 controller(events);
  EXPECT_EQ(read8(controller.command_port(), 0) & 2, 0)
      << "input buffer free: a reboot need not wait";
  write8(controller.command_port(), 0, 0xfe);
  EXPECT_EQ(events.resets, 1);
  write8(controller.command_port(), 0, 0xd1);
  write8(controller.data_port(), 0, 0xfe);
  EXPECT_EQ(events.resets, 2) << "output port bit 0";
  write8(controller.data_port(), 0, 0xfe);
  EXPECT_EQ(events.resets, 2) << "no command pending";
}

TEST(I8042, NoiseOutlastsLinuxAndEnds) {
  Events events;
  I8042 controller(events);
  int drained = 0;
  while ((read8(controller.command_port(), 0) & 1) != 0 && drained < 1000) {
    read8(controller.data_port(), 0);
    ++drained;
  }
  EXPECT_GT(drained, 16);
  EXPECT_LT(drained, 100);
  write8(controller.command_port(), 0, 0xaa);
  EXPECT_EQ(read8(controller.command_port(), 0) & 1, 1);
  EXPECT_EQ(read8(controller.data_port(), 0), 0x55);
  write8(controller.command_port(), 0, 0x60);
  write8(controller.data_port(), 0, 0x47);
  write8(controller.command_port(), 0, 0x20);
  EXPECT_EQ(read8(controller.data_port(), 0), 0x47);
}

TEST(I8042, AnswersAreBounded) {
  Events events;
  I8042 controller(events);
  for (int i = 0; i < 10000; ++i) write8(controller.command_port(), 0, 0xaa);
  int left = 0;
  while ((read8(controller.command_port(), 0) & 1) != 0 && left < 1000) {
    read8(controller.data_port(), 0);
    ++left;
  }
  EXPECT_LE(left, 64);
}

TEST(PciPorts, NothingThereAndReset) {
  Events events;
  PciPorts ports(events);
  const u32 address = 0x80000000;
  ports.write(0, base::bytes_of(address));
  u32 back = 0;
  ports.read(0, base::bytes_of(back));
  EXPECT_EQ(back, 0xffffffffu);
  ports.read(4, base::bytes_of(back));
  EXPECT_EQ(back, 0xffffffffu);
  EXPECT_EQ(events.resets, 0);
  write8(ports, 1, 0x02);
  EXPECT_EQ(events.resets, 0);
  EXPECT_EQ(read8(ports, 1), 0x02);
  write8(ports, 1, 0x06);
  EXPECT_EQ(events.resets, 1);
}

TEST(DebugPorts, Report) {
  Events events;
  DebugExit exit(events);
  BootMarker marker(events);
  PostPort post;
  const u32 code = 0x10;
  exit.write(0, base::bytes_of(code));
  write8(exit, 1, 3);
  ASSERT_EQ(events.exits.size(), 1u) << "only the first byte counts";
  EXPECT_EQ(events.exits[0], 0x21);
  write8(marker, 0, BootMarker::kInitReached);
  EXPECT_EQ(events.markers, std::vector<u8>{1});
  write8(post, 0, 0x42);
  EXPECT_EQ(post.last(), 0x42);
}

}  // namespace
}  // namespace smol::devices::legacy

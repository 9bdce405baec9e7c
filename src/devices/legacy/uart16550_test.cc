#include "devices/legacy/uart16550.h"

#include <gtest/gtest.h>

#include <string>

#include "devices/legacy/fakes.h"

namespace smol::devices::legacy {
namespace {

using testing::Line;
using testing::read8;
using testing::write8;

struct UartTest : ::testing::Test {
  Line line;
  std::string sent;
  int rooms = 0;
  Uart16550 uart{line, [this](ConstByteSpan b) { sent.append(b.begin(), b.end()); },
                 [this] { ++rooms; }};

  std::size_t offer(std::string_view text) {
    return uart.offer_input({reinterpret_cast<const u8*>(text.data()), text.size()});
  }
};

TEST_F(UartTest, ResetValues) {
  EXPECT_EQ(read8(uart, 1), 0);
  EXPECT_EQ(read8(uart, 2), 0x01);
  EXPECT_EQ(read8(uart, 5), 0x60);
  EXPECT_EQ(read8(uart, 6), 0xb0);
  EXPECT_FALSE(line.level);
}

TEST_F(UartTest, SendsAndRaisesTransmitterEmpty) {
  write8(uart, 0, 'a');
  EXPECT_EQ(sent, "a");
  EXPECT_FALSE(line.level) << "not enabled yet";
  write8(uart, 1, 2);
  EXPECT_TRUE(line.level);
  EXPECT_EQ(read8(uart, 2), 0x02);
  EXPECT_FALSE(line.level) << "reading IIR takes it";
  EXPECT_EQ(read8(uart, 2), 0x01);
  write8(uart, 0, 'b');
  EXPECT_TRUE(line.level);
  write8(uart, 1, 0);
  EXPECT_FALSE(line.level);
  write8(uart, 1, 2);
  EXPECT_TRUE(line.level) << "enabling it while empty raises it again";
}

TEST_F(UartTest, DivisorLatchHidesDataAndEnable) {
  write8(uart, 3, 0x83);
  write8(uart, 0, 0x34);
  write8(uart, 1, 0x12);
  EXPECT_EQ(read8(uart, 0), 0x34);
  EXPECT_EQ(read8(uart, 1), 0x12);
  write8(uart, 3, 0x03);
  EXPECT_EQ(read8(uart, 1), 0);
  EXPECT_TRUE(sent.empty());
}

TEST_F(UartTest, ScratchAndUpperEnableBits) {
  write8(uart, 7, 0xa5);
  EXPECT_EQ(read8(uart, 7), 0xa5);
  write8(uart, 1, 0xff);
  EXPECT_EQ(read8(uart, 1), 0x0f);
}

TEST_F(UartTest, FifoIsReportedAndTriggersAtItsLevel) {
  write8(uart, 2, 0xc1);  // trigger at 14
  EXPECT_EQ(read8(uart, 2) & 0xc0, 0xc0);
  write8(uart, 1, 1);
  offer("x");
  EXPECT_TRUE(line.level);
  EXPECT_EQ(read8(uart, 2), 0xcc) << "time-out below the trigger";
  offer("abcdefghijklmn");
  EXPECT_EQ(read8(uart, 2), 0xc4);
  EXPECT_EQ(read8(uart, 0), 'x');
  EXPECT_TRUE(line.level);
  for (int i = 0; i < 14; ++i) EXPECT_EQ(read8(uart, 0), 'a' + i);
  EXPECT_FALSE(line.level);
  EXPECT_EQ(read8(uart, 5), 0x60);
}

TEST_F(UartTest, LosesNothingOfALongInput) {
  std::string text;
  for (int i = 0; i < 10000; ++i) text += static_cast<char>(i * 7);
  std::size_t at = offer(text);
  EXPECT_LT(at, text.size());
  std::string got;
  while (got.size() < text.size()) {
    ASSERT_NE(read8(uart, 5) & 1, 0);
    got += static_cast<char>(read8(uart, 0));
    if (rooms > 0) {
      rooms = 0;
      at += offer(std::string_view(text).substr(at));
    }
  }
  EXPECT_EQ(got, text);
  EXPECT_EQ(read8(uart, 5) & 1, 0);
}

TEST_F(UartTest, InterruptPriority) {
  write8(uart, 2, 0x01);
  write8(uart, 1, 0x0f);
  write8(uart, 4, 0x10);  // loopback with all outputs off: CTS, DSR, DCD change
  write8(uart, 3, 0x40);  // break: line status, and a received 0
  EXPECT_EQ(read8(uart, 2), 0xc6);
  EXPECT_EQ(read8(uart, 5), 0xf1) << "break, ready, FIFO error";
  EXPECT_EQ(read8(uart, 5), 0x61) << "error is cleared by the read";
  EXPECT_EQ(read8(uart, 2), 0xc4);
  EXPECT_EQ(read8(uart, 0), 0);
  EXPECT_EQ(read8(uart, 2), 0xc2);
  EXPECT_EQ(read8(uart, 2), 0xc0) << "modem status is the last";
  EXPECT_TRUE(line.level);
  EXPECT_EQ(read8(uart, 6), 0x0b);
  EXPECT_EQ(read8(uart, 2), 0xc1);
  EXPECT_FALSE(line.level);
}

TEST_F(UartTest, LoopbackConnectsDataAndModemLines) {
  write8(uart, 4, 0x1a);  // loop, OUT2, RTS: the test that Linux's driver makes
  EXPECT_EQ(read8(uart, 6) & 0xf0, 0x90);
  write8(uart, 0, 0x5a);
  EXPECT_TRUE(sent.empty());
  EXPECT_EQ(read8(uart, 0), 0x5a);
  offer("h");
  EXPECT_EQ(read8(uart, 5) & 1, 0) << "the pin is disconnected";
  write8(uart, 4, 0);
  EXPECT_EQ(read8(uart, 0), 'h');
}

TEST_F(UartTest, RingCountsAtItsEnd) {
  write8(uart, 4, 0x14);
  read8(uart, 6);
  write8(uart, 4, 0x10);
  EXPECT_EQ(read8(uart, 6), 0x04);
}

TEST_F(UartTest, OverrunInLoopback) {
  write8(uart, 4, 0x10);
  write8(uart, 0, 1);
  write8(uart, 0, 2);
  EXPECT_EQ(read8(uart, 5), 0x63);
  EXPECT_EQ(read8(uart, 0), 2) << "the holding register keeps the last";
  write8(uart, 2, 0x01);
  for (u8 i = 0; i < 17; ++i) write8(uart, 0, i);
  EXPECT_EQ(read8(uart, 5), 0x63);
  for (u8 i = 0; i < 16; ++i) EXPECT_EQ(read8(uart, 0), i) << "the FIFO keeps the first";
  EXPECT_EQ(read8(uart, 5), 0x60);
}

TEST_F(UartTest, FifoClear) {
  write8(uart, 2, 0x01);
  write8(uart, 4, 0x10);
  write8(uart, 0, 1);
  write8(uart, 2, 0x03);
  EXPECT_EQ(read8(uart, 5), 0x60);
}

TEST_F(UartTest, WideAccessesTouchNeighbouringRegisters) {
  const u8 two[] = {'q', 0x02};
  uart.write(0, two);
  EXPECT_EQ(sent, "q");
  EXPECT_EQ(read8(uart, 1), 2);
  u8 past[4] = {};
  uart.read(6, past);
  EXPECT_EQ(past[2], 0xff);
}

}  // namespace
}  // namespace smol::devices::legacy

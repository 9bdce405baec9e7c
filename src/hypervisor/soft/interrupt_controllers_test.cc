// I/O APIC, PIC and PIT alone.
#include <gtest/gtest.h>

#include <vector>

#include "hypervisor/soft/io_apic.h"
#include "hypervisor/soft/pic.h"
#include "hypervisor/soft/pit.h"

namespace smol::hypervisor::soft {
namespace {

struct IoApicRecorder : IoApicSink {
  bool send(const InterruptMessage& message) override {
    sent.push_back(message);
    return taken;
  }
  std::vector<InterruptMessage> sent;
  bool taken = true;
};

void set_entry(IoApic& apic, u32 pin, u32 low, u32 high) {
  apic.write(0, 0x11 + pin * 2);
  apic.write(0x10, high);
  apic.write(0, 0x10 + pin * 2);
  apic.write(0x10, low);
}
u32 entry_low(IoApic& apic, u32 pin) {
  apic.write(0, 0x10 + pin * 2);
  return apic.read(0x10);
}

TEST(IoApic, IdentifiesItself) {
  IoApicRecorder sink;
  IoApic apic(sink);
  apic.write(0, 1);
  EXPECT_EQ(apic.read(0x10), 0x170011u);
  apic.write(0, 0);
  apic.write(0x10, 0xff000000);
  EXPECT_EQ(apic.read(0x10), 0x0f000000u);
  EXPECT_EQ(entry_low(apic, 23), 0x10000u);
}

TEST(IoApic, EdgeFiresOnceARise) {
  IoApicRecorder sink;
  IoApic apic(sink);
  set_entry(apic, 4, 0x34, 0x02000000);
  apic.set_line(4, true);
  apic.set_line(4, true);
  ASSERT_EQ(sink.sent.size(), 1u);
  EXPECT_EQ(sink.sent[0].vector, 0x34);
  EXPECT_EQ(sink.sent[0].destination, 2u);
  EXPECT_FALSE(sink.sent[0].level);
  apic.set_line(4, false);
  apic.set_line(4, true);
  EXPECT_EQ(sink.sent.size(), 2u);
}

TEST(IoApic, MaskedEdgeIsLost) {
  IoApicRecorder sink;
  IoApic apic(sink);
  set_entry(apic, 4, 0x10034, 0);
  apic.set_line(4, true);
  set_entry(apic, 4, 0x34, 0);
  EXPECT_TRUE(sink.sent.empty());
}

TEST(IoApic, LevelWaitsForEoi) {
  IoApicRecorder sink;
  IoApic apic(sink);
  set_entry(apic, 9, 0x8000 | 0x51, 0);
  apic.set_line(9, true);
  ASSERT_EQ(sink.sent.size(), 1u);
  EXPECT_TRUE(sink.sent[0].level);
  EXPECT_EQ(entry_low(apic, 9) & 0x4000, 0x4000u);
  apic.set_line(9, true);
  EXPECT_EQ(sink.sent.size(), 1u);
  apic.end_of_interrupt(0x50);
  EXPECT_EQ(sink.sent.size(), 1u);
  apic.end_of_interrupt(0x51);  // still asserted: again
  EXPECT_EQ(sink.sent.size(), 2u);
  apic.set_line(9, false);
  apic.end_of_interrupt(0x51);
  EXPECT_EQ(sink.sent.size(), 2u);
  EXPECT_EQ(entry_low(apic, 9) & 0x4000, 0u);
}

TEST(IoApic, MaskedLevelIsDeliveredWhenUnmasked) {
  IoApicRecorder sink;
  IoApic apic(sink);
  set_entry(apic, 9, 0x18000 | 0x51, 0);
  apic.set_line(9, true);
  EXPECT_TRUE(sink.sent.empty());
  set_entry(apic, 9, 0x8000 | 0x51, 0);
  EXPECT_EQ(sink.sent.size(), 1u);
}

TEST(IoApic, SwitchToEdgeClearsRemoteIrr) {
  IoApicRecorder sink;
  IoApic apic(sink);
  set_entry(apic, 9, 0x8000 | 0x51, 0);
  apic.set_line(9, true);
  set_entry(apic, 9, 0x10051, 0);
  EXPECT_EQ(entry_low(apic, 9), 0x10051u);
}

TEST(IoApic, HostileAccessesAreHarmless) {
  IoApicRecorder sink;
  IoApic apic(sink);
  for (u32 select = 0; select < 256; ++select) {
    apic.write(0, select);
    apic.write(0x10, 0xffffffff);
    apic.read(0x10);
  }
  apic.set_line(24, true);
  apic.set_line(~0u, true);
  EXPECT_TRUE(sink.sent.empty());
}

void initialise(Pic& pic, u8 icw4 = 1) {
  pic.write(0x20, 0x11);
  pic.write(0x21, 0x30);
  pic.write(0x21, 4);
  pic.write(0x21, icw4);
  pic.write(0xa0, 0x11);
  pic.write(0xa1, 0x38);
  pic.write(0xa1, 2);
  pic.write(0xa1, icw4);
}

TEST(Pic, PriorityAndEoi) {
  Pic pic;
  initialise(pic);
  pic.set_line(4, true);
  pic.set_line(1, true);
  EXPECT_TRUE(pic.output());
  EXPECT_EQ(pic.acknowledge(), 0x31);
  EXPECT_FALSE(pic.output());  // 4 waits for 1
  pic.write(0x20, 0x20);
  EXPECT_TRUE(pic.output());
  EXPECT_EQ(pic.acknowledge(), 0x34);
  pic.set_line(0, true);
  EXPECT_TRUE(pic.output());  // higher
  EXPECT_EQ(pic.acknowledge(), 0x30);
  pic.write(0x20, 0x60 | 4);  // specific
  pic.write(0x20, 0x0b);
  EXPECT_EQ(pic.read(0x20), 0x01);
}

TEST(Pic, SlaveThroughTheCascade) {
  Pic pic;
  initialise(pic);
  pic.set_line(10, true);
  pic.set_line(12, true);
  EXPECT_EQ(pic.acknowledge(), 0x3a);
  EXPECT_FALSE(pic.output());
  pic.write(0xa0, 0x20);
  pic.write(0x20, 0x20);
  EXPECT_TRUE(pic.output());
  EXPECT_EQ(pic.acknowledge(), 0x3c);
}

TEST(Pic, MaskAndSpurious) {
  Pic pic;
  initialise(pic);
  pic.write(0x21, 0xff);
  pic.set_line(3, true);
  EXPECT_FALSE(pic.output());
  EXPECT_EQ(pic.acknowledge(), 0x37);  // nothing there
  pic.write(0x21, 0xf7);
  EXPECT_EQ(pic.read(0x21), 0xf7);
  EXPECT_EQ(pic.acknowledge(), 0x33);
}

TEST(Pic, AnEdgeIsLatchedAPulseIsEnough) {
  Pic pic;
  initialise(pic);
  pic.set_line(5, true);
  pic.set_line(5, false);
  EXPECT_TRUE(pic.output());
  EXPECT_EQ(pic.acknowledge(), 0x35);
  pic.write(0x20, 0x20);
  EXPECT_FALSE(pic.output());
}

TEST(Pic, LevelFollowsTheLine) {
  Pic pic;
  initialise(pic);
  pic.write(0x4d0, 0xff);
  EXPECT_EQ(pic.read(0x4d0), 0xf8);
  pic.write(0x4d1, 0xff);
  EXPECT_EQ(pic.read(0x4d1), 0xde);
  pic.set_line(5, true);
  EXPECT_EQ(pic.acknowledge(), 0x35);
  pic.write(0x20, 0x20);
  EXPECT_TRUE(pic.output());  // still asserted
  pic.set_line(5, false);
  EXPECT_FALSE(pic.output());
}

TEST(Pic, AutoEoiRotatesWhenAsked) {
  Pic pic;
  initialise(pic, 3);
  pic.write(0x20, 0x80);
  pic.set_line(1, true);
  EXPECT_EQ(pic.acknowledge(), 0x31);
  pic.write(0x20, 0x0b);
  EXPECT_EQ(pic.read(0x20), 0);
  pic.set_line(1, false);
  pic.set_line(1, true);
  pic.set_line(5, true);
  EXPECT_EQ(pic.acknowledge(), 0x35);  // 1 is lowest now
}

TEST(Pic, SpecialMaskLetsLowerThrough) {
  Pic pic;
  initialise(pic);
  pic.set_line(1, true);
  EXPECT_EQ(pic.acknowledge(), 0x31);
  pic.set_line(6, true);
  EXPECT_FALSE(pic.output());
  pic.write(0x21, 0x02);
  pic.write(0x20, 0x68);
  EXPECT_TRUE(pic.output());
  EXPECT_EQ(pic.acknowledge(), 0x36);
}

TEST(Pic, PollAcknowledges) {
  Pic pic;
  initialise(pic);
  pic.set_line(6, true);
  pic.write(0x20, 0x0c);
  EXPECT_EQ(pic.read(0x20), 0x86);
  EXPECT_FALSE(pic.output());
  pic.write(0x20, 0x0b);
  EXPECT_EQ(pic.read(0x20), 0x40);
}

constexpr u64 kMs = 1'000'000;

TEST(Pit, PeriodicRises) {
  Pit pit(0);
  pit.write(0x43, 0x34, 0);
  pit.write(0x40, 0xa9, 0);
  pit.write(0x40, 0x04, 0);  // 1193: about 1 kHz
  const u64 first = pit.next_deadline();
  EXPECT_NEAR(static_cast<double>(first), 1e6, 1e3);
  EXPECT_FALSE(pit.advance(first - 1));
  EXPECT_TRUE(pit.advance(first));
  EXPECT_FALSE(pit.advance(first));
  EXPECT_GT(pit.next_deadline(), first);
  EXPECT_TRUE(pit.advance(100 * kMs));
  EXPECT_GT(pit.next_deadline(), 100 * kMs);
  u32 rises = 0;
  for (u64 now = 100 * kMs; now < 200 * kMs; now = pit.next_deadline())
    rises += pit.advance(now) ? 1 : 0;
  EXPECT_NEAR(rises, 100, 1);
}

TEST(Pit, OneShotRisesOnce) {
  Pit pit(5);
  pit.write(0x43, 0x30, 5);
  pit.write(0x40, 0xff, 5);
  EXPECT_EQ(pit.next_deadline(), Pit::kNever);
  pit.write(0x40, 0xff, 5);
  EXPECT_FALSE(pit.output(0, 50 * kMs));
  EXPECT_TRUE(pit.output(0, 55 * kMs));
  EXPECT_TRUE(pit.advance(60 * kMs));
  EXPECT_EQ(pit.next_deadline(), Pit::kNever);
  EXPECT_FALSE(pit.advance(600 * kMs));
}

TEST(Pit, CalibrationThroughPort61) {
  Pit pit(0);
  pit.write(0x61, (pit.read(0x61, 0) & ~2) | 1, 0);
  pit.write(0x43, 0xb0, 0);
  const u32 count = static_cast<u32>(Pit::kHz / 20);  // 50 ms
  pit.write(0x42, static_cast<u8>(count), 0);
  pit.write(0x42, static_cast<u8>(count >> 8), 0);
  EXPECT_EQ(pit.read(0x61, 49 * kMs) & 0x21, 0x01);
  EXPECT_EQ(pit.read(0x61, 51 * kMs) & 0x21, 0x21);
}

TEST(Pit, GateHoldsModeZero) {
  Pit pit(0);
  pit.write(0x61, 1, 0);
  pit.write(0x43, 0xb0, 0);
  pit.write(0x42, 0x00, 0);
  pit.write(0x42, 0x10, 0);  // 4096 ticks: 3.43 ms
  pit.write(0x61, 0, kMs);
  EXPECT_EQ(pit.read(0x61, 100 * kMs) & 0x20, 0);
  pit.write(0x61, 1, 100 * kMs);
  EXPECT_EQ(pit.read(0x61, 102 * kMs) & 0x20, 0);
  EXPECT_EQ(pit.read(0x61, 103 * kMs) & 0x20, 0x20);
}

TEST(Pit, LatchAndReadBack) {
  Pit pit(0);
  pit.write(0x43, 0x34, 0);
  pit.write(0x40, 0, 0);
  pit.write(0x40, 0, 0);
  pit.write(0x43, 0x00, 10 * kMs);  // latch
  const u32 low = pit.read(0x40, 20 * kMs);
  const u32 latched = low | (pit.read(0x40, 20 * kMs) << 8);
  EXPECT_NEAR(latched, 65536 - 11931, 2);
  pit.write(0x43, 0xe2, 20 * kMs);  // status of channel 0
  EXPECT_EQ(pit.read(0x40, 20 * kMs), 0xb4);
}

TEST(Pit, HostileAccessesAreHarmless) {
  Pit pit(0);
  u64 now = 0;
  for (u32 i = 0; i < 20000; ++i) {
    const u16 port = static_cast<u16>(i % 5 == 4 ? 0x61 : 0x40 + i % 5);
    pit.write(port, static_cast<u8>(i * 37 + (i >> 8)), now);
    pit.read(port, now);
    pit.advance(now);
    const u64 next = pit.next_deadline();
    ASSERT_GT(next, pit.save().delivered_ns);
    now += 997;
  }
}

}  // namespace
}  // namespace smol::hypervisor::soft

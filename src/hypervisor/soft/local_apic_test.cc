#include "hypervisor/soft/local_apic.h"

#include <gtest/gtest.h>

#include <vector>

namespace smol::hypervisor::soft {
namespace {

struct Recorder : LocalApicSink {
  void send(const InterruptMessage& message) override { sent.push_back(message); }
  void broadcast_eoi(u8 vector) override { eois.push_back(vector); }
  void nmi() override { ++nmis; }
  void init() override { ++inits; }
  void startup(u8 page) override { startups.push_back(page); }
  std::vector<InterruptMessage> sent;
  std::vector<u8> eois, startups;
  int nmis = 0, inits = 0;
};

struct LocalApicTest : testing::Test {
  Recorder sink;
  LocalApic apic{{.id = 0, .bsp = true}, sink};
  ApicTime now{1000, 1000};
  void enable() { apic.write(0xf0, 0x1ff, now); }
  void x2() { ASSERT_TRUE(apic.set_apic_base(apic.apic_base() | kApicBaseX2)); }
};

TEST_F(LocalApicTest, PowerUp) {
  EXPECT_EQ(apic.apic_base(), 0xfee00900u);
  EXPECT_EQ(apic.read(0x30, now), 0x50014u);
  EXPECT_EQ(apic.read(0xf0, now), 0xffu);
  EXPECT_EQ(apic.read(0xe0, now), 0xffffffffu);
  EXPECT_EQ(apic.read(0x350, now), 0x700u);
  EXPECT_EQ(apic.read(0x320, now), 0x10000u);
  EXPECT_TRUE(apic.accepts_pic());
  apic.set_irr(0x40, false);
  EXPECT_FALSE(apic.has_interrupt());  // software-disabled
}

TEST_F(LocalApicTest, PrioritiesNest) {
  enable();
  apic.set_irr(0x41, false);
  apic.set_irr(0x52, false);
  EXPECT_EQ(apic.acknowledge(), 0x52);
  EXPECT_EQ(apic.read(0xa0, now), 0x50u);
  EXPECT_FALSE(apic.has_interrupt());
  apic.set_irr(0x55, false);
  EXPECT_FALSE(apic.has_interrupt());  // same class
  apic.set_irr(0x61, false);
  EXPECT_EQ(apic.acknowledge(), 0x61);
  apic.write(0xb0, 0, now);
  EXPECT_FALSE(apic.has_interrupt());
  apic.write(0xb0, 0, now);
  EXPECT_EQ(apic.acknowledge(), 0x55);
  apic.write(0xb0, 0, now);
  apic.set_cr8(4);
  EXPECT_FALSE(apic.has_interrupt());
  apic.set_cr8(3);
  EXPECT_EQ(apic.read(0x80, now), 0x30u);
  EXPECT_EQ(apic.acknowledge(), 0x41);
  EXPECT_TRUE(sink.eois.empty());
}

TEST_F(LocalApicTest, LevelEoiIsBroadcast) {
  enable();
  apic.set_irr(0x41, true);
  EXPECT_EQ(apic.read(0x1a0, now), 2u);  // TMR 64-95
  EXPECT_EQ(apic.acknowledge(), 0x41);
  apic.write(0xb0, 0, now);
  EXPECT_EQ(sink.eois, std::vector<u8>{0x41});
}

TEST_F(LocalApicTest, BaseTransitions) {
  EXPECT_FALSE(apic.set_apic_base(kApicDefaultAddress | kApicBaseX2));  // x2 without enable
  EXPECT_FALSE(apic.set_apic_base(apic.apic_base() | 1));               // reserved
  EXPECT_FALSE(apic.set_apic_base(apic.apic_base() | (u64{1} << 45)));  // beyond the address width
  EXPECT_TRUE(apic.set_apic_base(kApicDefaultAddress | kApicBaseBsp));  // off
  EXPECT_EQ(apic.mmio_page(), ~u64{0});
  EXPECT_FALSE(apic.set_apic_base(0xfee00d00));  // off -> x2APIC
  EXPECT_TRUE(apic.set_apic_base(0xfee00900));
  EXPECT_EQ(apic.mmio_page(), kApicDefaultAddress);
  EXPECT_TRUE(apic.set_apic_base(0xfee00d00));
  EXPECT_EQ(apic.mmio_page(), ~u64{0});
  EXPECT_FALSE(apic.set_apic_base(0xfee00900));  // x2APIC -> xAPIC
  EXPECT_TRUE(apic.set_apic_base(0xfee00100));
}

TEST_F(LocalApicTest, X2ApicMsrs) {
  u64 value = 0;
  EXPECT_FALSE(apic.read_msr(0x802, value, now));  // not in x2APIC mode
  x2();
  ASSERT_TRUE(apic.read_msr(0x80d, value, now));
  EXPECT_EQ(value, 1u);
  EXPECT_FALSE(apic.write_msr(0x802, 0, now));
  EXPECT_FALSE(apic.read_msr(0x80b, value, now));
  EXPECT_FALSE(apic.write_msr(0x80b, 1, now));
  EXPECT_TRUE(apic.write_msr(0x80b, 0, now));
  EXPECT_FALSE(apic.write_msr(0x808, 0x100, now));
  EXPECT_TRUE(apic.write_msr(0x808, 0x20, now));
  EXPECT_EQ(apic.cr8(), 2);
  EXPECT_FALSE(apic.read_msr(0x80e, value, now));  // DFR is gone
  EXPECT_FALSE(apic.read_msr(0x831, value, now));  // ICR2 is gone
  EXPECT_FALSE(apic.write_msr(0x830, 1 << 20, now));
  EXPECT_TRUE(apic.write_msr(0x80f, 0x1ff, now));
  EXPECT_TRUE(apic.write_msr(0x83f, 0x44, now));
  ASSERT_EQ(sink.sent.size(), 1u);
  EXPECT_EQ(sink.sent[0].shorthand, Shorthand::kSelf);
  EXPECT_EQ(sink.sent[0].vector, 0x44);
  EXPECT_TRUE(apic.write_msr(0x830, (u64{0x12345} << 32) | 0x45, now));
  EXPECT_EQ(sink.sent[1].destination, 0x12345u);
  ASSERT_TRUE(apic.read_msr(0x830, value, now));
  EXPECT_EQ(value, (u64{0x12345} << 32) | 0x45);
}

TEST_F(LocalApicTest, IcrInXApic) {
  enable();
  apic.write(0x310, 0x03000000, now);
  apic.write(0x300, 0x4608, now);
  ASSERT_EQ(sink.sent.size(), 1u);
  EXPECT_EQ(sink.sent[0].mode, DeliveryMode::kStartup);
  EXPECT_EQ(sink.sent[0].destination, 3u);
  EXPECT_EQ(sink.sent[0].vector, 8);
}

TEST_F(LocalApicTest, IllegalVectorSetsEsr) {
  enable();
  apic.write(0x370, 0xee, now);
  apic.write(0x300, (1 << 18) | 5, now);
  EXPECT_EQ(apic.read(0x280, now), 0u);
  apic.write(0x280, 0, now);
  EXPECT_EQ(apic.read(0x280, now), 0x20u);
  apic.write(0x280, 0, now);
  EXPECT_EQ(apic.read(0x280, now), 0u);
  EXPECT_EQ(apic.acknowledge(), 0xee);
}

TEST_F(LocalApicTest, SoftwareDisableMasksTheTable) {
  enable();
  apic.write(0x320, 0x30, now);
  apic.write(0xf0, 0xff, now);
  EXPECT_EQ(apic.read(0x320, now), 0x10030u);
  apic.write(0x320, 0x30, now);
  EXPECT_EQ(apic.read(0x320, now), 0x10030u);
}

TEST_F(LocalApicTest, OneShotTimer) {
  enable();
  apic.write(0x3e0, 0x3, now);  // by 16
  apic.write(0x320, 0x30, now);
  apic.write(0x380, 1000, now);
  EXPECT_EQ(apic.next_deadline(now), 17000u);
  EXPECT_EQ(apic.read(0x390, {9000, 0}), 500u);
  apic.advance({16999, 0});
  EXPECT_FALSE(apic.has_interrupt());
  apic.advance({17000, 0});
  EXPECT_EQ(apic.acknowledge(), 0x30);
  EXPECT_EQ(apic.next_deadline({17000, 0}), kNoDeadline);
  EXPECT_EQ(apic.read(0x390, {18000, 0}), 0u);
}

TEST_F(LocalApicTest, PeriodicTimerDoesNotDrift) {
  enable();
  apic.write(0x3e0, 0xb, now);  // by 1
  apic.write(0x320, 0x20030, now);
  apic.write(0x380, 1000000, now);
  EXPECT_EQ(apic.next_deadline(now), 1001000u);
  apic.advance({1001500, 0});
  EXPECT_EQ(apic.next_deadline(now), 2001000u);
  EXPECT_EQ(apic.acknowledge(), 0x30);
  apic.advance({5001500, 0});
  EXPECT_EQ(apic.next_deadline(now), 6001000u);
  apic.write(0x380, 0, {5001500, 0});
  EXPECT_EQ(apic.next_deadline(now), kNoDeadline);
}

TEST_F(LocalApicTest, TscDeadline) {
  enable();
  u64 value = 0;
  EXPECT_TRUE(apic.write_msr(0x6e0, 5000, now));  // not in this mode: ignored
  EXPECT_TRUE(apic.read_msr(0x6e0, value, now));
  EXPECT_EQ(value, 0u);
  apic.write(0x320, 0x40031, now);
  EXPECT_TRUE(apic.write_msr(0x6e0, 5000, now));
  EXPECT_EQ(apic.next_deadline(now), 5000u);
  apic.advance({4999, 4999});
  EXPECT_FALSE(apic.has_interrupt());
  apic.advance({5000, 5000});
  EXPECT_EQ(apic.acknowledge(), 0x31);
  EXPECT_TRUE(apic.read_msr(0x6e0, value, now));
  EXPECT_EQ(value, 0u);
  EXPECT_TRUE(apic.write_msr(0x6e0, 10, {6000, 6000}));  // in the past: at once
  EXPECT_EQ(apic.next_deadline({6000, 6000}), 6000u);
  apic.write(0x320, 0x31, {6000, 6000});
  EXPECT_EQ(apic.next_deadline({6000, 6000}), kNoDeadline);
}

TEST_F(LocalApicTest, LintLines) {
  apic.set_lint(1, true);
  EXPECT_EQ(sink.nmis, 0);  // masked
  apic.set_lint(1, false);
  enable();
  apic.write(0x360, 0x400, now);
  apic.set_lint(1, true);
  apic.set_lint(1, true);
  EXPECT_EQ(sink.nmis, 1);
  apic.write(0x350, 0x10700, now);
  EXPECT_FALSE(apic.accepts_pic());
  apic.write(0x350, 0x33, now);
  apic.set_lint(0, true);
  EXPECT_EQ(apic.acknowledge(), 0x33);
}

TEST_F(LocalApicTest, SaveAndRestore) {
  enable();
  apic.set_irr(0x41, true);
  apic.write(0x3e0, 0xb, now);
  apic.write(0x320, 0x30, now);
  apic.write(0x380, 1000000, now);
  const auto page = apic.save({501000, 0});
  EXPECT_EQ(base::load<u32>(page.data() + 0x390), 500000u);
  Recorder other_sink;
  LocalApic other({.id = 0, .bsp = true}, other_sink);
  other.restore(page, {0, 0});
  EXPECT_EQ(other.next_deadline({0, 0}), 500000u);
  EXPECT_EQ(other.acknowledge(), 0x41);
}

struct Routing : testing::Test {
  Recorder sinks[3];
  LocalApic zero{{.id = 0, .bsp = true}, sinks[0]}, one{{.id = 1}, sinks[1]},
      two{{.id = 2}, sinks[2]};
  LocalApic* all[3] = {&zero, &one, &two};
  ApicTime now{};
  void SetUp() override {
    for (LocalApic* apic : all) apic->write(0xf0, 0x1ff, now);
  }
  std::vector<int> receivers(const InterruptMessage& message, const LocalApic* source = nullptr) {
    deliver(message, all, source);
    std::vector<int> got;
    for (int i = 0; i < 3; ++i)
      if (all[i]->acknowledge() >= 0) {
        got.push_back(i);
        all[i]->write(0xb0, 0, now);
      }
    return got;
  }
};

TEST_F(Routing, PhysicalAndBroadcast) {
  EXPECT_EQ(receivers({.destination = 1, .vector = 0x40}), std::vector<int>{1});
  EXPECT_EQ(receivers({.destination = 0xff, .vector = 0x40}), (std::vector<int>{0, 1, 2}));
  EXPECT_EQ(receivers({.destination = 9, .vector = 0x40}), std::vector<int>{});
}

TEST_F(Routing, Shorthands) {
  EXPECT_EQ(receivers({.vector = 0x40, .shorthand = Shorthand::kSelf}, &two), std::vector<int>{2});
  EXPECT_EQ(receivers({.vector = 0x40, .shorthand = Shorthand::kOthers}, &two),
            (std::vector<int>{0, 1}));
  EXPECT_EQ(receivers({.vector = 0x40, .shorthand = Shorthand::kAll}, &two),
            (std::vector<int>{0, 1, 2}));
}

TEST_F(Routing, LogicalFlatAndCluster) {
  for (u32 i = 0; i < 3; ++i) all[i]->write(0xd0, 1u << (24 + i), now);
  EXPECT_EQ(receivers({.destination = 5, .logical = true, .vector = 0x40}),
            (std::vector<int>{0, 2}));
  for (LocalApic* apic : all) apic->write(0xe0, 0x0fffffff, now);
  zero.write(0xd0, 0x11000000, now);
  one.write(0xd0, 0x12000000, now);
  two.write(0xd0, 0x21000000, now);
  EXPECT_EQ(receivers({.destination = 0x13, .logical = true, .vector = 0x40}),
            (std::vector<int>{0, 1}));
}

TEST_F(Routing, LowestPriorityPicksTheIdle) {
  zero.set_cr8(3);
  one.set_cr8(1);
  two.set_cr8(2);
  EXPECT_EQ(receivers({.destination = 0xff, .mode = DeliveryMode::kLowestPriority, .vector = 0x40}),
            std::vector<int>{1});
}

TEST_F(Routing, X2ApicClusters) {
  for (LocalApic* apic : all) ASSERT_TRUE(apic->set_apic_base(apic->apic_base() | kApicBaseX2));
  EXPECT_EQ(receivers({.destination = 6, .logical = true, .vector = 0x40, .wide = true}),
            (std::vector<int>{1, 2}));
  EXPECT_EQ(receivers({.destination = 0x10006, .logical = true, .vector = 0x40, .wide = true}),
            std::vector<int>{});
  EXPECT_EQ(receivers({.destination = 0xff, .vector = 0x40, .wide = true}), std::vector<int>{});
  EXPECT_EQ(receivers({.destination = ~0u, .vector = 0x40, .wide = true}),
            (std::vector<int>{0, 1, 2}));
}

TEST_F(Routing, InitAndStartup) {
  deliver({.destination = 2, .mode = DeliveryMode::kInit, .level = true}, all, &zero);
  deliver({.destination = 2, .mode = DeliveryMode::kInit, .level = true, .asserted = false}, all,
          &zero);
  deliver({.destination = 2, .mode = DeliveryMode::kStartup, .vector = 0x9a}, all, &zero);
  EXPECT_EQ(sinks[2].inits, 1);
  EXPECT_EQ(sinks[2].startups, std::vector<u8>{0x9a});
}

TEST_F(Routing, Msi) {
  EXPECT_EQ(receivers(message_of_msi(0xfee01000, 0x41)), std::vector<int>{1});
}

TEST(LocalApicHostile, AnyWriteIsHarmless) {
  Recorder sink;
  LocalApic apic({.id = 0, .bsp = true}, sink);
  ApicTime now{};
  u64 seed = 1;
  for (u32 i = 0; i < 200000; ++i) {
    seed = seed * 6364136223846793005 + 1442695040888963407;
    now.ns += 13;
    now.tsc += 13;
    apic.write(static_cast<u32>(seed >> 40) & 0xfff, static_cast<u32>(seed >> 8), now);
    apic.read(static_cast<u32>(seed >> 33) & 0xfff, now);
    apic.write_msr(0x800 + (static_cast<u32>(seed >> 50) & 0xff), seed & 0x3ffff, now);
    if (i % 1000 == 0) apic.set_apic_base(0xfee00900 | (i % 3000 == 0 ? kApicBaseX2 : 0));
    if (i % 7000 == 0) apic.set_apic_base(0xfee00000);
    apic.advance(now);
    ASSERT_GT(apic.next_deadline(now), 0u);
    apic.acknowledge();
    if (sink.sent.size() > 1000) sink.sent.clear();
  }
}

}  // namespace
}  // namespace smol::hypervisor::soft

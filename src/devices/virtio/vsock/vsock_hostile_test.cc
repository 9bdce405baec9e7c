// A guest that breaks every rule of the socket device: it is answered by resets, or the device asks
// for its own reset; nothing crashes, hangs or grows.
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devices/virtio/vsock/fake_guest.h"

namespace smol::devices::virtio {
namespace {

using testing::FakeGuest;
using testing::FakeHost;
using testing::Packet;

struct HostileVsockTest : ::testing::Test {
  HostileVsockTest() {
    auto created = Vsock::create(*loop, {.guest_cid = FakeGuest::kCid, .socket = name});
    CHECK(created);
    vsock = std::move(*created);
    guest.emplace(*vsock, u16{16}, kFeatureIndirectDescriptors);
    guest->post(16);
  }
  void restart() {
    guest->host.reset();
    guest->start();
    guest->post(8);
  }
  int next_op() {
    const auto packet = guest->receive();
    return packet ? static_cast<int>(packet->op()) : -1;
  }
  base::UniqueFd open(u32 guest_port, u32 host_port) {
    HostListener listener = std::move(*HostListener::listen(fmt::format("{}_{}", name, host_port)));
    guest->send(VsockOp::kRequest, guest_port, host_port);
    EXPECT_EQ(next_op(), 2);
    return listener.accept();
  }
  const std::string name = fmt::format("@smol-vsock-hostile-{}", ::getpid());
  std::unique_ptr<base::EventLoop> loop = std::move(*base::EventLoop::create());
  std::unique_ptr<Vsock> vsock;
  std::optional<FakeGuest> guest;
};

constexpr int kReset = 3, kNothing = -1;

TEST_F(HostileVsockTest, PacketsThatBelongToNoStream) {
  for (const VsockOp op :
       {VsockOp::kInvalid, VsockOp::kResponse, VsockOp::kShutdown, VsockOp::kData,
        VsockOp::kCreditUpdate, VsockOp::kCreditRequest, VsockOp{8}, VsockOp{0xffff}}) {
    guest->send(op, 1, 2);
    EXPECT_EQ(next_op(), kReset) << static_cast<int>(op);
  }
  guest->send(VsockOp::kReset, 1, 2);
  EXPECT_EQ(next_op(), kNothing) << "a reset is never answered by one";
}

TEST_F(HostileVsockTest, WrongAddressesAndTypes) {
  VsockHeader header = FakeGuest::header(VsockOp::kRequest, 1, 2);
  header.source_cid = 99;
  guest->send(header);
  EXPECT_EQ(next_op(), kNothing) << "not the guest's own CID: dropped";
  header = FakeGuest::header(VsockOp::kRequest, 1, 2);
  header.destination_cid = 55;
  guest->send(header);
  const auto reset = guest->receive();
  ASSERT_TRUE(reset);
  EXPECT_EQ(reset->op(), VsockOp::kReset);
  EXPECT_EQ(reset->header.source_cid, 55u) << "the driver must recognise whom it asked";
  header = FakeGuest::header(VsockOp::kRequest, 1, 2);
  header.type = 2;
  guest->send(header);
  EXPECT_EQ(next_op(), kReset);
}

TEST_F(HostileVsockTest, StreamsThatGoWrong) {
  const auto ends_with_reset = [&](auto action) {
    restart();
    base::UniqueFd host = open(10, 20);
    action();
    EXPECT_EQ(next_op(), kReset);
    char byte;
    EXPECT_EQ(::recv(host.get(), &byte, 1, MSG_DONTWAIT), 0) << "the host sees the end";
    EXPECT_EQ(vsock->connection_count(), 0u);
  };
  ends_with_reset([&] { guest->send(VsockOp::kRequest, 10, 20); });
  ends_with_reset([&] { guest->send(VsockOp::kResponse, 10, 20); });
  ends_with_reset([&] { guest->send(VsockOp::kInvalid, 10, 20); });
  ends_with_reset([&] { guest->send(VsockOp{77}, 10, 20); });
  ends_with_reset([&] {  // a length beyond the packet
    guest->send(FakeGuest::header(VsockOp::kData, 10, 20, 0xffffffff), "abc");
  });
  ends_with_reset([&] { guest->send(FakeGuest::header(VsockOp::kCreditUpdate, 10, 20, 1)); });
}

TEST_F(HostileVsockTest, CreditThatMakesNoSense) {
  base::UniqueFd host = open(10, 20);
  for (const auto& [size, forwarded] : {std::pair<u32, u32>{0, 0},
                                        {0xffffffff, 0},
                                        {0, 0xffffffff},
                                        {0xffffffff, 0xffffffff},
                                        {1, 0x80000000}}) {
    VsockHeader header = FakeGuest::header(VsockOp::kCreditUpdate, 10, 20);
    header.buffer_size = size;
    header.forwarded = forwarded;
    guest->send(header);
    ASSERT_EQ(::send(host.get(), "xyz", 3, MSG_NOSIGNAL), 3);
    for (int i = 0; i < 3; ++i) ASSERT_TRUE(loop->run_once(0));
  }
  while (guest->receive()) {
  }
  EXPECT_TRUE(guest->host.reset_reason.empty());
}

TEST_F(HostileVsockTest, PacketsCutShort) {
  guest->host.driver(1).add({{FakeGuest::kSendBase, 43}});
  guest->host.kick(1);
  guest->host.driver(1).add({{FakeGuest::kSendBase, 44, true}});
  guest->host.kick(1);
  EXPECT_EQ(guest->host.driver(1).used_index(), 2) << "dropped, and given back";
  EXPECT_EQ(next_op(), kNothing);
  EXPECT_TRUE(guest->host.reset_reason.empty());
}

TEST_F(HostileVsockTest, ReceiveBuffersOfNoUse) {
  for (const testing::Buffer& buffer : {testing::Buffer{FakeGuest::kReceiveBase, 44, true},
                                        testing::Buffer{FakeGuest::kReceiveBase, 4096, false}}) {
    guest->host.reset();
    guest->start();
    guest->host.driver(0).add({buffer});
    guest->send(VsockOp::kData, 1, 2);  // wants an answer
    EXPECT_NE(guest->host.reset_reason.find("too small"), std::string::npos);
  }
}

TEST_F(HostileVsockTest, BrokenRingsDoNotSpin) {
  const auto breaks = [&](u16 queue, auto action, std::string_view text) {
    restart();
    base::UniqueFd host = open(10, 20);
    // A fresh receive queue whose entries are all taken: what follows is the first the device sees.
    while (guest->receive(false)) {
    }
    action(guest->host.driver(queue));
    ASSERT_EQ(::send(host.get(), "data", 4, MSG_NOSIGNAL), 4);
    guest->host.kick(queue);
    for (int i = 0; i < 20 && guest->host.reset_reason.empty(); ++i) ASSERT_TRUE(loop->run_once(0));
    EXPECT_NE(guest->host.reset_reason.find(text), std::string::npos) << guest->host.reset_reason;
    host.reset();
    for (int i = 0; i < 5; ++i) ASSERT_TRUE(loop->run_once(0));
    guest->host.kick(queue);
  };
  for (const u16 queue : {u16{0}, u16{1}}) {
    breaks(queue, [](auto& driver) { driver.set_available_index(40000); }, "entries ahead");
    if (queue == 0) continue;  // the receive queue holds good buffers in front of the next ones
    breaks(queue, [](auto& driver) { driver.publish(1000); }, "does not exist");
    breaks(queue, [](auto& driver) { driver.add({{~u64{0} - 3, 44}}); }, "not in RAM");
    breaks(
        queue,
        [](auto& driver) {
          driver.write_descriptor(3, {FakeGuest::kSendBase, 1, kDescriptorNext, 3});
          driver.publish(3);
        },
        "loop");
  }
  restart();
  open(1, 2);
}

TEST_F(HostileVsockTest, AFloodOfRequestsAndResets) {
  HostListener listener = std::move(*HostListener::listen(name + "_80"));
  for (u32 i = 0; i < 5000; ++i) {
    guest->send(VsockOp::kRequest, i % 7, 80);
    guest->send(VsockOp::kReset, i % 7, 80);
    while (guest->receive()) {
    }
    while (listener.accept().valid()) {
    }
  }
  EXPECT_EQ(vsock->connection_count(), 0u);
}

}  // namespace
}  // namespace smol::devices::virtio

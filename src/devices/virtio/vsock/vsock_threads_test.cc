// The socket device with its real threads: the loop on one, the guest (this test) on another, a
// host program on a third.
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "devices/virtio/vsock/fake_guest.h"

namespace smol::devices::virtio {
namespace {

using testing::FakeGuest;

constexpr u64 kTotal = 8 * kMiB;

char byte_at(u64 i) { return static_cast<char>(i * 13 + i / 251); }

// Answers each byte by the same byte, until the end.
void echo(HostListener& listener, std::atomic<bool>& stop) {
  base::UniqueFd socket;
  while (!socket.valid() && !stop) {
    socket = listener.accept();
    if (!socket.valid()) std::this_thread::yield();
  }
  std::string waiting;
  bool ended = false;
  char buffer[30000];
  while (!stop && !(ended && waiting.empty())) {
    if (!ended && waiting.size() < 100'000) {
      const ssize_t got = ::recv(socket.get(), buffer, sizeof(buffer), MSG_DONTWAIT);
      if (got > 0) waiting.append(buffer, static_cast<std::size_t>(got));
      ended |= got == 0;
    }
    const ssize_t put =
        ::send(socket.get(), waiting.data(), waiting.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (put > 0)
      waiting.erase(0, static_cast<std::size_t>(put));
    else
      std::this_thread::yield();
  }
}

TEST(VsockThreads, EchoOfManyBytes) {
  const std::string name = fmt::format("@smol-vsock-threads-{}", ::getpid());
  auto loop = std::move(*base::EventLoop::create());
  auto vsock = std::move(*Vsock::create(*loop, {.guest_cid = FakeGuest::kCid, .socket = name}));
  std::atomic<bool> stop{false};
  HostListener listener = std::move(*HostListener::listen(name + "_80"));
  std::thread host_thread([&] { echo(listener, stop); });
  FakeGuest guest(*vsock, 64);
  guest.post(64);
  std::thread loop_thread([&] { EXPECT_TRUE(loop->run()); });

  u64 sent = 0, received = 0;
  u32 credit_forwarded = 0;
  bool ended = false, shut = false, good = true;
  guest.send(VsockOp::kRequest, 5, 80);
  for (u64 spins = 0; !ended && good && spins < 20'000'000; ++spins) {
    const u32 room = Connection::kBufferSize - (static_cast<u32>(sent) - credit_forwarded);
    const u64 size = std::min<u64>({kTotal - sent, room, 40'000});
    if (size != 0 && guest.can_send()) {
      std::string piece(size, 0);
      for (u64 i = 0; i < size; ++i) piece[i] = byte_at(sent + i);
      VsockHeader header = FakeGuest::header(VsockOp::kData, 5, 80, static_cast<u32>(size));
      header.forwarded = static_cast<u32>(received);
      guest.send(header, piece);
      sent += size;
    } else if (sent == kTotal && !shut && guest.can_send()) {
      shut = true;
      guest.send(VsockOp::kShutdown, 5, 80, "", kVsockShutdownSend);
    } else if (guest.can_send()) {
      VsockHeader header = FakeGuest::header(VsockOp::kCreditUpdate, 5, 80);
      header.forwarded = static_cast<u32>(received);
      guest.send(header);
      std::this_thread::yield();
    }
    while (const auto packet = guest.receive()) {
      credit_forwarded = packet->header.forwarded;
      for (const char c : packet->payload) good &= c == byte_at(received++);
      ended |= packet->op() == VsockOp::kShutdown || packet->op() == VsockOp::kReset;
    }
  }
  EXPECT_TRUE(good) << "bytes changed on the way";
  EXPECT_TRUE(ended);
  EXPECT_EQ(received, kTotal);
  stop = true;
  loop->stop();
  loop_thread.join();
  host_thread.join();
}

}  // namespace
}  // namespace smol::devices::virtio

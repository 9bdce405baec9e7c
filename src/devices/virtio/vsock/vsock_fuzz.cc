// The socket device under a hostile driver, with real sockets behind it: a host's listener that
// accepts and answers, and host's clients that come and go.
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"
#include "devices/virtio/queue/fuzz_device.h"
#include "devices/virtio/vsock/fake_guest.h"

namespace smol::devices::virtio {
namespace {

using testing::FakeGuest;
using testing::FakeHost;
using testing::FuzzInput;

struct Bench {
  Bench() {
    name = fmt::format("@smol-vsock-fuzz-{}", ::getpid());
    auto created = Vsock::create(*loop, {.guest_cid = FakeGuest::kCid, .socket = name});
    CHECK(created);
    vsock = std::move(*created);
    host.emplace(*vsock);
    listener = std::move(*HostListener::listen(name + "_1"));
  }
  std::string name;
  std::unique_ptr<base::EventLoop> loop = std::move(*base::EventLoop::create());
  std::unique_ptr<Vsock> vsock;
  std::optional<FakeHost> host;
  HostListener listener;
  std::vector<base::UniqueFd> ends;
};

// A packet of the right shape, ports from a few so that streams are met again; one in eight has odd
// fields.
void fuzz_packet(Bench& bench, FuzzInput& input) {
  static constexpr u16 kOps[] = {1, 1, 1, 2, 3, 4, 5, 5, 5, 5, 5, 6, 7, 0, 8, 5};
  const u64 at = FakeHost::kDataBase + 0x4000;
  const u8 kind = input.take<u8>();
  const u32 ports = input.take<u8>();
  VsockHeader header = FakeGuest::header(VsockOp{kOps[kind % 16]}, ports % 2,
                                         ports % 8 < 5 ? 1 : Vsock::kFirstHostPort + ports % 2);
  const u32 room = input.take<u8>() * 32u;
  header.length = room;
  header.flags = header.op == 4 ? 1 + ports / 8 % 3 : 0;
  if (kind >= 224) {
    header.buffer_size = input.take<u32>();
    header.forwarded = input.take<u32>();
    header.length = input.take<u32>();
    header.flags = input.take<u8>();
    if (input.take<u8>() % 4 == 0) header.destination_cid = input.take<u8>();
  }
  CHECK(bench.host->memory->store(GuestPhysical(at), header));
  auto& queue = bench.host->driver(Vsock::kTransmitQueue);
  for (int i = 0; i < 64 && queue.take_used(); ++i) {
  }
  if (queue.can_add(2)) queue.add({{at, sizeof(header)}, {at + sizeof(header), room}});
  bench.host->kick(Vsock::kTransmitQueue);
}

void host_step(Bench& bench, FuzzInput& input) {
  char buffer[4096];
  switch (input.take<u8>() % 6) {
    case 0:
      if (auto end = bench.listener.accept(); end.valid()) bench.ends.push_back(std::move(end));
      break;
    case 1:
      if (bench.ends.size() < 8)
        if (auto client = connect_host_socket(bench.name)) {
          (void)!::send(client->get(), "CONNECT 1\nx", 11, MSG_NOSIGNAL | MSG_DONTWAIT);
          bench.ends.push_back(std::move(*client));
        }
      break;
    case 2:
      if (!bench.ends.empty()) bench.ends.pop_back();
      break;
    case 3:
      for (const auto& end : bench.ends) (void)!::recv(end.get(), buffer, 4096, MSG_DONTWAIT);
      break;
    case 4:
      for (const auto& end : bench.ends)
        (void)!::send(end.get(), buffer, input.take<u8>(), MSG_NOSIGNAL | MSG_DONTWAIT);
      break;
    default:
      if (!bench.ends.empty()) ::shutdown(bench.ends.back().get(), input.take<u8>() % 3);
  }
}

void post_buffer(Bench& bench) {
  auto& queue = bench.host->driver(Vsock::kReceiveQueue);
  for (int i = 0; i < 64 && queue.take_used(); ++i) {
  }
  if (queue.can_add(1)) queue.add({{FakeHost::kDataBase + 0x10000, 512, true}});
  bench.host->kick(Vsock::kReceiveQueue);
}

}  // namespace
}  // namespace smol::devices::virtio

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace smol::devices::virtio;
  smol::base::set_log_level(smol::base::LogLevel::kError);
  static Bench bench;
  FuzzInput input(data, size);
  bench.host->reset();
  bench.ends.clear();
  while (bench.listener.accept().valid()) {  // of the last input, or the backlog is full for ever
  }
  bench.host->activate((kFeatureEventIndex | kFeatureIndirectDescriptors) &
                       input.take<smol::u64>());
  while (!input.done()) {
    switch (input.take<smol::u8>() % 8) {
      case 0:
        testing::fuzz_step(*bench.vsock, *bench.host, input, 3);
        break;
      case 1:
      case 2:
        host_step(bench, input);
        break;
      case 3:
        if (input.take<smol::u8>() % 16 == 0) bench.vsock->flush(0);
        CHECK(bench.loop->run_once(0));
        break;
      case 4:
        post_buffer(bench);
        break;
      default:
        fuzz_packet(bench, input);
    }
  }
  bench.ends.clear();
  for (int i = 0; i < 3; ++i) CHECK(bench.loop->run_once(0));
  return 0;
}

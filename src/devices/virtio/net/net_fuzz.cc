// The network device under a hostile driver: every queue, every chain; the backend answers, is
// busy, reserves and gives at odd times.
#include "base/check.h"
#include "devices/virtio/net/fake_backend.h"
#include "devices/virtio/net/net.h"
#include "devices/virtio/queue/fuzz_device.h"

namespace smol::devices::virtio {
namespace {

using testing::FakeBackend;
using testing::FakeHost;
using testing::FuzzInput;

// What the world behind the device does.
void backend_step(Net& net, FakeBackend& backend, FuzzInput& input) {
  const std::lock_guard lock(net.mutex());
  backend.busy = input.take<u8>() % 4 == 0;
  backend.echo = input.take<u8>() % 2 == 0;
  backend.sent.clear();
  if (backend.waiting.size() < 4) backend.waiting.emplace_back(1 + input.take<u16>() % 3000, 'w');
  if (backend.sink == nullptr) return;
  backend.sink->steer(input.take<u8>() % 4);
  switch (input.take<u8>() % 4) {
    case 0:
      backend.give(std::string(1 + input.take<u16>(), 'x'),
                   {.flags = 1, .gso_type = 1, .gso_size = 1000});
      break;
    case 1:
      backend.give(std::string(1 + input.take<u8>(), 'y'), {}, net::kMaxFrame);
      break;
    case 2:
      backend.sink->transmit_again();
      break;
    default:
      (void)backend.sink->reserve(input.take<u32>());
  }
  backend.sink->flush();
}

// Chains of the right shape, so that deep code is reached too.
void driver_step(Net& net, FakeHost& host, FuzzInput& input) {
  const u16 queue = static_cast<u16>(input.take<u8>() % net.queue_sizes().size());
  if (!host.driver(queue).can_add(3)) return;
  const u64 at = FakeHost::kDataBase + u64{input.take<u8>()} * 4096;
  if (queue + 1u == net.queue_sizes().size()) {
    const std::string command = std::string{static_cast<char>(input.take<u8>() % 6),
                                            static_cast<char>(input.take<u8>() % 7)};
    host.put(at, command + input.bytes(input.take<u8>() % 32));
    host.driver(queue).add({{at, 2u + input.take<u8>() % 32}, {at + 100, 1, true}});
  } else if (queue % 2 == 0) {
    host.driver(queue).add(
        {{at, 12u + input.take<u16>() % 4096, true}, {at, input.take<u8>(), true}});
  } else {
    net::OffloadHeader offload = input.take<net::OffloadHeader>();
    if (input.take<u8>() % 2 == 0)
      offload = {
          .flags = 1, .gso_type = 1, .gso_size = 9, .checksum_start = 5, .checksum_offset = 6};
    CHECK(host.memory->store(GuestPhysical(at), offload));
    host.driver(queue).add({{at, 12u + input.take<u8>() % 3}, {at + 12, input.take<u16>()}});
  }
  host.kick(queue);
}

}  // namespace
}  // namespace smol::devices::virtio

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace smol::devices::virtio;
  static auto loop = std::move(*smol::base::EventLoop::create());
  static testing::FakeBackend* backend = nullptr;
  static auto net = [] {
    auto owned = std::make_unique<testing::FakeBackend>();
    backend = owned.get();
    return std::move(*Net::create(*loop, std::move(owned),
                                  {.mac = {2, 0, 0, 0, 0, 1}, .mtu = 1500, .queue_pairs = 2}));
  }();
  static testing::FakeHost host(*net);
  smol::base::set_log_level(smol::base::LogLevel::kError);
  testing::FuzzInput input(data, size);
  host.reset();
  backend->waiting.clear();
  const smol::u64 wanted = (net->features() | kFeatureEventIndex | kFeatureIndirectDescriptors) &
                           input.take<smol::u64>();
  host.activate(net->accept_features(wanted) ? wanted : net->features());
  while (!input.done()) {
    switch (input.take<smol::u8>() % 3) {
      case 0:
        backend_step(*net, *backend, input);
        break;
      case 1:
        driver_step(*net, host, input);
        break;
      default:
        testing::fuzz_step(*net, host, input, static_cast<smol::u16>(net->queue_sizes().size()));
    }
  }
  return 0;
}

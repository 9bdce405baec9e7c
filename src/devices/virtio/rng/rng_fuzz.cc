// The entropy device under a hostile driver.
#include "base/check.h"
#include "devices/virtio/queue/fuzz_device.h"
#include "devices/virtio/rng/rng.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace smol::devices::virtio;
  static auto loop = std::move(*smol::base::EventLoop::create());
  static auto rng = std::move(*Rng::create(*loop, "/dev/zero"));
  static testing::FakeHost host(*rng);
  testing::FuzzInput input(data, size);
  host.reset();
  host.activate((kFeatureEventIndex | kFeatureIndirectDescriptors) & input.take<smol::u64>());
  while (!input.done()) testing::fuzz_step(*rng, host, input, 1);
  return 0;
}

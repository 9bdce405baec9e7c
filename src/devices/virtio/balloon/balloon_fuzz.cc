// The balloon under a hostile driver.
#include "devices/virtio/balloon/balloon.h"
#include "devices/virtio/queue/fuzz_device.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace smol::devices::virtio;
  static Balloon balloon(smol::kMiB, {});
  static testing::FakeHost host(balloon);
  testing::FuzzInput input(data, size);
  host.reset();
  host.activate((balloon.features() | kFeatureEventIndex | kFeatureIndirectDescriptors) &
                input.take<smol::u64>());
  while (!input.done()) {
    testing::fuzz_step(balloon, host, input, 5);
    if (input.take<smol::u8>() % 16 == 0) balloon.set_target(input.take<smol::u32>());
    if (input.take<smol::u8>() % 16 == 0) balloon.refresh_figures(0);
  }
  return 0;
}

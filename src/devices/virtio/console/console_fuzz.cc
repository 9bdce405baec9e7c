// The console under a hostile driver, with a host's end that is sometimes slow, at its end or
// broken.
#include "base/check.h"
#include "devices/virtio/console/console.h"
#include "devices/virtio/queue/fuzz_device.h"

namespace smol::devices::virtio {
namespace {

struct FuzzBackend final : ConsoleBackend {
  Result<std::size_t> write(ConstByteSpan bytes) override {
    if (mode % 64 == 63) return fail("gone");
    return mode % 3 == 0 ? 0 : std::min<std::size_t>(bytes.size(), mode * 5 + 1);
  }
  Result<std::optional<std::size_t>> read(ByteSpan into) override {
    if (mode % 64 == 62) return fail("gone");
    if (mode % 64 == 61) return std::size_t{0};
    if (left == 0) return std::nullopt;
    --left;
    const std::size_t count = std::min<std::size_t>(into.size(), mode + 1);
    std::fill_n(into.begin(), count, mode);
    return count;
  }
  int input_fd() const override { return -1; }
  int output_fd() const override { return -1; }
  u8 mode = 1;
  u8 left = 0;
};

}  // namespace
}  // namespace smol::devices::virtio

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace smol::devices::virtio;
  static auto loop = std::move(*smol::base::EventLoop::create());
  smol::base::set_log_level(static_cast<smol::base::LogLevel>(-1));
  auto owned = std::make_unique<FuzzBackend>();
  FuzzBackend* const backend = owned.get();
  auto console = std::move(*Console::create(*loop, std::move(owned), {80, 25}));
  testing::FakeHost host(*console, 16, testing::FakeHost::kMemorySize);
  testing::FuzzInput input(data, size);
  host.activate((kFeatureEventIndex | kFeatureIndirectDescriptors | 1) & input.take<smol::u64>());
  while (!input.done()) {
    backend->mode = input.take<smol::u8>();
    backend->left = backend->mode / 16;
    if (backend->mode % 8 == 7) console->resize({backend->mode, 25});
    if (backend->mode % 16 == 3) console->flush(0);
    testing::fuzz_step(*console, host, input, 2);
  }
  return 0;
}

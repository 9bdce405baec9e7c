// The queue itself under a hostile driver: every chain that pop() gives must lie in guest memory
// and within the bounds that the header promises.
#include "base/check.h"
#include "devices/virtio/queue/fuzz_device.h"

namespace smol::devices::virtio {
namespace {

using testing::FakeHost;
using testing::FuzzInput;

struct Checker final : VirtioDevice {
  std::string_view name() const override { return "checker"; }
  u32 device_id() const override { return 0; }
  u64 features() const override { return 0; }
  std::span<const u16> queue_sizes() const override { return kSizes; }
  void read_config(u64 offset, ByteSpan data) override { read_config_bytes({}, offset, data); }
  void activate(u64, std::span<Queue> queues, DeviceHost& host) override {
    queues_ = queues;
    host_ = &host;
  }
  void process_queue(u16 index) override {
    if (host_ == nullptr) return;
    Queue& queue = queues_[index];
    for (int served = 0; served < 64; ++served) {
      auto chain = queue.pop();
      if (!chain) {
        CHECK(queue.broken());
        std::exchange(host_, nullptr)->needs_reset(chain.error());
        return;
      }
      if (!chain->has_value()) break;
      check(queue.memory(), **chain);
      if (served % 5 == 4) {
        queue.undo_pop(std::move(**chain));
        CHECK(queue.has_available());
        continue;
      }
      Reader reader(**chain);
      Writer writer(**chain, queue.memory());
      u8 buffer[300];
      const std::size_t count = reader.read_some(buffer);
      writer.write_some({buffer, count});
      queue.push(std::move(**chain), writer.written());
    }
    queue.enable_notifications();
    queue.should_notify();
  }
  void reset() override {
    queues_ = {};
    host_ = nullptr;
  }
  static void check(GuestMemory& memory, const Chain& chain) {
    u64 sizes[2] = {};
    CHECK(chain.readable().size() + chain.writable().size() <= kMaxIndirectEntries + kSizes[0]);
    for (int writable = 0; writable < 2; ++writable) {
      for (const Segment& segment : writable != 0 ? chain.writable() : chain.readable()) {
        CHECK(segment.size != 0);
        CHECK(segment.host == memory.find(segment.address, segment.size));
        CHECK(segment.host != nullptr);
        sizes[writable] += segment.size;
      }
    }
    CHECK(sizes[0] == chain.readable_size() && sizes[1] == chain.writable_size());
    CHECK(sizes[0] + sizes[1] <= 0xffffffff);
  }

  static constexpr u16 kSizes[] = {16, 8};
  std::span<Queue> queues_;
  DeviceHost* host_ = nullptr;
};

}  // namespace
}  // namespace smol::devices::virtio

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace smol::devices::virtio;
  static Checker checker;
  static testing::FakeHost host(checker);
  testing::FuzzInput input(data, size);
  host.reset();
  host.activate((kFeatureEventIndex | kFeatureIndirectDescriptors) & input.take<smol::u64>());
  while (!input.done()) testing::fuzz_step(checker, host, input, 2);
  return 0;
}

// The register window under a hostile driver: any access in any order, with a device that uses its
// queues. What the registers promise is checked as it goes.
#include "base/check.h"
#include "devices/virtio/queue/fuzz_device.h"
#include "devices/virtio/transport/mmio.h"

namespace smol::devices::virtio {
namespace {

using testing::FuzzInput;

struct Sink final : VirtioDevice {
  std::string_view name() const override { return "sink"; }
  u32 device_id() const override { return 1; }
  u64 features() const override { return 5; }
  std::span<const u16> queue_sizes() const override { return kSizes; }
  bool accept_features(u64 features) override { return (features & 4) == 0; }
  void read_config(u64 offset, ByteSpan data) override { read_config_bytes({}, offset, data); }
  void activate(u64 features, std::span<Queue> queues, DeviceHost& host) override {
    CHECK(host_ == nullptr);
    CHECK((features & kFeatureVersion1) != 0 && (features & 4) == 0);
    queues_ = queues;
    host_ = &host;
  }
  void process_queue(u16 index) override {
    CHECK(host_ != nullptr);
    for (int i = 0; i < 64; ++i) {
      auto chain = queues_[index].pop();
      if (!chain) return host_->needs_reset(chain.error());
      if (!chain->has_value()) break;
      queues_[index].push(std::move(**chain), 0);
    }
    if (queues_[index].should_notify()) host_->notify_used(index);
  }
  void reset() override { host_ = nullptr; }
  static constexpr u16 kSizes[] = {64, 8};
  std::span<Queue> queues_;
  DeviceHost* host_ = nullptr;
};

struct NoLine : InterruptLine {
  void set_level(bool) override {}
  void pulse() override {}
};

struct Bench {
  std::unique_ptr<memory::GuestMemory> memory = std::move(*memory::GuestMemory::create(kMiB));
  std::unique_ptr<base::EventLoop> loop = std::move(*base::EventLoop::create());
  NoLine line;
  std::unique_ptr<MmioTransport> transport =
      std::move(*MmioTransport::create(*memory, std::make_unique<Sink>(), line, *loop));
  u32 get(u64 offset) {
    u32 value = 0;
    transport->read(offset, base::bytes_of(value));
    return value;
  }
  void set(u64 offset, u32 value) { transport->write(offset, base::bytes_of(value)); }
};

// Brings the device up the right way, with addresses from the input.
void bring_up(Bench& bench, FuzzInput& input) {
  for (const u32 status : {0u, 1u, 3u}) bench.set(0x70, status);
  bench.set(0x24, 0);
  bench.set(0x20, input.take<u8>() % 4 == 0 ? input.take<u32>() : (input.take<u8>() & 0x30) << 24);
  bench.set(0x24, 1);
  bench.set(0x20, input.take<u8>() % 16 != 0);
  bench.set(0x70, 11);
  const u64 base = u64{input.take<u8>()} * 0x1000;
  bench.set(0x30, input.take<u8>() % 2);
  bench.set(0x38, 8);
  bench.set(0x80, static_cast<u32>(base));
  bench.set(0x90, static_cast<u32>(base) + 0x100);
  bench.set(0xa0, static_cast<u32>(base) + 0x200);
  bench.set(0x44, 1);
  bench.set(0x70, 15);
}

void step(Bench& bench, FuzzInput& input) {
  static constexpr u8 kRegisters[] = {0x10, 0x14, 0x20, 0x24, 0x30, 0x34, 0x38, 0x44,
                                      0x50, 0x60, 0x64, 0x70, 0x80, 0x84, 0x90, 0x94,
                                      0xa0, 0xa4, 0xac, 0xb0, 0xc0, 0xfc};
  switch (input.take<u8>() % 8) {
    case 0:
      return bring_up(bench, input);
    case 1:
    case 2:
      return bench.set(kRegisters[input.take<u8>() % sizeof(kRegisters)],
                       input.take<u8>() % 2 == 0 ? input.take<u8>() : input.take<u32>());
    case 3: {
      u8 bytes[8] = {};
      const ByteSpan access = ByteSpan(bytes).first(1 + input.take<u8>() % 8);
      const u64 offset = input.take<u16>() % kMmioWindowSize;
      bench.transport->read(offset, access);
      bench.transport->write(offset, access);
      return;
    }
    case 4: {
      const std::string bytes = input.bytes(input.take<u8>() % 64);
      (void)bench.memory->write(GuestPhysical(u64{input.take<u16>()} * 16),
                                {reinterpret_cast<const u8*>(bytes.data()), bytes.size()});
      return;
    }
    case 5:
      bench.set(0x50, input.take<u8>() % 3);
      [[fallthrough]];
    default:
      CHECK(bench.loop->run_once(0));
  }
  const u32 status = bench.get(0x70);
  if ((status & kStatusDriverOk) != 0) CHECK((status & kStatusFeaturesOk) != 0);
  CHECK(bench.get(0x00) == 0x74726976 && bench.get(0x04) == 2);
}

}  // namespace
}  // namespace smol::devices::virtio

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace smol::devices::virtio;
  smol::base::set_log_level(smol::base::LogLevel::kError);
  static Bench bench;
  FuzzInput input(data, size);
  bench.set(0x70, 0);
  CHECK(bench.get(0x70) == 0 && bench.get(0x60) == 0);
  while (!input.done()) step(bench, input);
  return 0;
}

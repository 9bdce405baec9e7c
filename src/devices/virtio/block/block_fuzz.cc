// The block device under a hostile driver. The disk checks that no request reaches it outside of
// its size.
#include "base/check.h"
#include "devices/virtio/block/block.h"
#include "devices/virtio/queue/fuzz_device.h"

namespace smol::devices::virtio {
namespace {

struct FuzzDisk final : storage::Disk {
  static constexpr u64 kSize = 64 * kKiB;
  std::string_view name() const override { return "fuzz.img"; }
  u64 size() const override { return kSize; }
  bool read_only() const override { return false; }
  u32 block_size() const override { return 512; }
  static void check(u64 offset, u64 size) {
    CHECK(offset % 512 == 0 && size % 512 == 0 && offset <= kSize && size <= kSize - offset);
  }
  Result<> read(std::span<const iovec> buffers, u64 offset) override {
    u64 size = 0;
    for (const iovec& b : buffers) size += b.iov_len;
    check(offset, size);
    for (const iovec& b : buffers) std::memset(b.iov_base, 'r', b.iov_len);
    return {};
  }
  Result<> write(std::span<const iovec> buffers, u64 offset) override {
    u64 size = 0, sum = 0;
    for (const iovec& b : buffers) size += b.iov_len;
    check(offset, size);
    for (const iovec& b : buffers)
      for (u64 i = 0; i < b.iov_len; ++i) sum += static_cast<const u8*>(b.iov_base)[i];
    if (sum % 16 == 1) return fail("a bad sector");
    return {};
  }
  Result<> flush() override { return {}; }
  Result<> discard(u64 offset, u64 size) override {
    check(offset, size);
    return {};
  }
  Result<> resize(u64) override { return fail("not here"); }
  Result<> write_zeroes(u64 offset, u64 size, bool) override {
    check(offset, size);
    return {};
  }
};

// A request of the right shape, so that all types are reached.
void fuzz_request(testing::FakeHost& host, testing::FuzzInput& input) {
  using testing::FakeHost;
  struct {
    u32 type, reserved;
    u64 sector;
  } header{};
  header.type = input.take<u8>() % 16;
  header.sector = input.take<u8>() % 4 == 0 ? input.take<u64>() : input.take<u8>();
  CHECK(host.memory->store(GuestPhysical(FakeHost::kDataBase), header));
  const bool writable = input.take<u8>() % 2 == 0;
  const u8 shape = input.take<u8>();
  const u32 length = shape % 3 == 0   ? u32{input.take<u8>()} % 8 * 512
                     : shape % 3 == 1 ? u32{input.take<u8>()} % 3 * 16
                                      : input.length();
  const struct {
    u64 sector;
    u32 count, flags;
  } range{input.take<u8>(), input.take<u8>() % 64u, input.take<u8>() % 3u};
  CHECK(host.memory->store(GuestPhysical(FakeHost::kDataBase + 4096), range));
  std::vector<testing::Buffer> buffers{{FakeHost::kDataBase, 16, false},
                                       {FakeHost::kDataBase + 4096, length, writable},
                                       {FakeHost::kDataBase + 64, 1, true}};
  if (host.driver(0).can_add(3)) host.driver(0).add(buffers);
  host.kick(0);
}

}  // namespace
}  // namespace smol::devices::virtio

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace smol::devices::virtio;
  smol::base::set_log_level(smol::base::LogLevel::kError);
  static auto loop = std::move(*smol::base::EventLoop::create());
  static auto block =
      std::move(*Block::create(*loop, std::make_unique<FuzzDisk>(), {.num_queues = 2}));
  static testing::FakeHost host(*block);
  testing::FuzzInput input(data, size);
  host.reset();
  host.activate((block->features() | kFeatureEventIndex | kFeatureIndirectDescriptors) &
                input.take<smol::u64>());
  while (!input.done()) {
    if (input.take<smol::u8>() % 2 == 0) fuzz_request(host, input);
    testing::fuzz_step(*block, host, input, 2);
    (void)loop->run_once(0);
  }
  return 0;
}

// A qcow2 image from somebody else: a good image with some of its bytes changed, or any bytes at
// all, and then whatever a guest may ask of the disk. Nothing may crash, hang or allocate without
// bounds; an Error is always a good answer.
#include "base/check.h"
#include "base/log.h"
#include "storage/fake_file.h"
#include "storage/qcow2.h"

namespace smol::storage {
namespace {

using testing::FakeFile;

struct Input {
  std::span<const u8> rest;
  template <class T>
  T take() {
    T value{};
    const std::size_t count = std::min(sizeof(T), rest.size());
    if (count != 0) std::memcpy(&value, rest.data(), count);
    rest = rest.subspan(count);
    return value;
  }
};

// Something of everything: data, zeroes, holes; a second one with small counts and version 2.
std::vector<u8> make_image(u32 cluster_bits, u32 order, u32 version) {
  auto owned = std::make_unique<FakeFile>();
  CHECK(Qcow2Disk::format(*owned, {.size = 256 * kKiB,
                                   .cluster_bits = cluster_bits,
                                   .refcount_order = order,
                                   .version = version}));
  std::vector<u8> kept;
  owned->keep = &kept;
  {
    const auto disk = std::move(*Qcow2Disk::open(std::move(owned)));
    std::vector<u8> data(20 * 512, 'd');
    const iovec buffer{data.data(), data.size()};
    CHECK(disk->write({&buffer, 1}, 0));
    CHECK(disk->write({&buffer, 1}, 100 * 512));
    CHECK(disk->write_zeroes(4096, 8192, true));
    CHECK(disk->write_zeroes(102 * 512, 4096, false));
  }
  return kept;
}

// Numbers that tables and headers have: small, near clusters, with flags, or any.
u64 word(Input& input) {
  const u8 kind = input.take<u8>();
  const u64 cluster = u64{input.take<u8>()} * 512;
  switch (kind % 6) {
    case 0:
      return cluster;
    case 1:
      return cluster | u64{1} << 63;
    case 2:
      return cluster | u64{1} << 62 | u64{input.take<u16>()} << 46;
    case 3:
      return cluster | (input.take<u8>() & 3);
    case 4:
      return input.take<u8>();
    default:
      return input.take<u64>();
  }
}

void damage(std::vector<u8>& bytes, Input& input) {
  for (int changes = input.take<u8>() % 12; changes > 0; --changes) {
    const u8 place = input.take<u8>();
    const u64 value = word(input);
    u64 at = place < 12 ? u64{place} * 8 : input.take<u16>() * u64{8};
    at = at % (bytes.size() - 8);
    if (at == 0) at = 32;  // without the magic number nothing else is looked at
    if (place % 3 == 0) {
      bytes[at] = static_cast<u8>(value);
    } else if (place < 12 && place % 3 == 1) {
      store_be32(bytes.data() + at, static_cast<u32>(value));
    } else {
      store_be64(bytes.data() + at, value);
    }
  }
}

void operate(Disk& disk, Input& input) {
  std::vector<u8> data(16 * kKiB, input.take<u8>());
  for (int i = 0; i < 24 && !input.rest.empty(); ++i) {
    const u64 sectors = disk.size() / 512;
    u64 first = input.take<u8>() % 4 == 0 ? input.take<u64>() : input.take<u8>();
    first %= sectors;
    const u64 size = std::min<u64>(sectors - first, 1 + input.take<u8>() % 32) * 512;
    const iovec buffer{data.data(), size};
    switch (input.take<u8>() % 8) {
      case 0:
      case 1:
        (void)disk.read({&buffer, 1}, first * 512);
        break;
      case 2:
        (void)disk.try_read({&buffer, 1}, first * 512);
        break;
      case 3:
      case 4:
        (void)disk.write({&buffer, 1}, first * 512);
        break;
      case 5:
        (void)disk.write_zeroes(first * 512, size, first % 2 == 0);
        break;
      case 6:
        (void)disk.discard(first * 512, size);
        break;
      default:
        if (input.take<u8>() % 8 == 0) {
          (void)disk.resize(disk.size() + u64{input.take<u16>()} * 512);
        } else {
          (void)disk.flush();
        }
    }
  }
}

}  // namespace
}  // namespace smol::storage

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace smol::storage;
  smol::base::set_log_level(smol::base::LogLevel(-1));
  static const std::vector<smol::u8> images[] = {make_image(9, 4, 3), make_image(10, 1, 3),
                                                 make_image(9, 4, 2)};
  Input input{{data, size}};
  const smol::u8 kind = input.take<smol::u8>();
  std::vector<smol::u8> bytes;
  if (kind == 255) {
    bytes.assign(input.rest.begin(), input.rest.end());
  } else {
    bytes = images[kind % 3];
    damage(bytes, input);
  }
  auto file = std::make_unique<testing::FakeFile>(std::move(bytes));
  file->limit = 1 * smol::kMiB;
  file->is_read_only = kind % 5 == 4;
  if (auto disk = Qcow2Disk::open(std::move(file))) operate(**disk, input);
  return 0;
}

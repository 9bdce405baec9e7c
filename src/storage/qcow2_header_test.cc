// Headers that are wrong, one field at a time: each is refused with a sentence that says what.
#include <gtest/gtest.h>

#include "storage/fake_file.h"
#include "storage/qcow2.h"

namespace smol::storage {
namespace {

using testing::FakeFile;

std::vector<u8> good_image() {
  FakeFile file;
  EXPECT_TRUE(Qcow2Disk::format(file, {.size = 8 * kMiB, .cluster_bits = 12}));
  return file.now;
}
std::string error_of(std::vector<u8> bytes, bool read_only = false) {
  auto file = std::make_unique<FakeFile>(std::move(bytes));
  file->is_read_only = read_only;
  const auto disk = Qcow2Disk::open(std::move(file));
  return disk ? "none" : disk.error().chain();
}
std::string with32(u64 at, u32 value) {
  auto bytes = good_image();
  store_be32(bytes.data() + at, value);
  return error_of(std::move(bytes));
}
std::string with64(u64 at, u64 value) {
  auto bytes = good_image();
  store_be64(bytes.data() + at, value);
  return error_of(std::move(bytes));
}
#define EXPECT_HAS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

TEST(Qcow2HeaderTest, FieldsOutOfRange) {
  EXPECT_EQ(error_of(good_image()), "none");
  EXPECT_HAS(error_of({}), "not a qcow2 image");
  EXPECT_HAS(with32(4, 4), "version 4");
  EXPECT_HAS(with32(4, 1), "version 1");
  EXPECT_HAS(with32(20, 8), "clusters of 2^8");
  EXPECT_HAS(with32(20, 22), "clusters of 2^22");
  EXPECT_HAS(with32(20, 0xffffffff), "clusters of");
  EXPECT_HAS(with64(24, 0), "no size");
  EXPECT_HAS(with64(24, 8 * kMiB + 1), "multiple of 512");
  EXPECT_HAS(with64(24, ~u64{511}), "multiple of 512");
  EXPECT_HAS(with64(24, 64 * kGiB), "too few");
  EXPECT_HAS(with32(36, 0), "too few");
  EXPECT_HAS(with32(36, 0xffffffff), "more than");
  EXPECT_HAS(with32(36, 100000), "not in the file");
  EXPECT_HAS(with64(40, 100), "does not begin at a cluster");
  EXPECT_HAS(with64(40, ~u64{4095}), "not in the file");
  EXPECT_HAS(with64(48, 7), "does not begin at a cluster");
  EXPECT_HAS(with64(48, u64{1} << 60), "not in the file");
  EXPECT_HAS(with32(56, 0), "no refcount table");
  EXPECT_HAS(with32(56, 0xffffffff), "more than");
  EXPECT_HAS(with32(60, 70000), "snapshots are too many");
  EXPECT_HAS(with32(96, 7), "refcounts of 2^7");
  EXPECT_HAS(with32(100, 50), "a header of 50");
  EXPECT_HAS(with32(100, 1 << 20), "a header of");
}

TEST(Qcow2HeaderTest, WhatIsNotSupportedIsNamed) {
  EXPECT_HAS(with32(32, 1), "AES");
  EXPECT_HAS(with32(32, 2), "LUKS");
  EXPECT_HAS(with64(72, kQcow2ExternalData), "external data file");
  EXPECT_HAS(with64(72, kQcow2ExtendedL2), "extended L2");
  EXPECT_HAS(with64(72, u64{1} << 33), "feature bit 33");
  EXPECT_HAS(with64(72, kQcow2CompressionType), "does not agree");
  auto named = good_image();
  store_be64(named.data() + 72, u64{1} << 40);
  store_be32(named.data() + 104, 0x6803f857);
  store_be32(named.data() + 108, 48);
  named[112] = 0;
  named[113] = 40;
  std::memcpy(named.data() + 114, "wishful thinking", 16);
  EXPECT_HAS(error_of(named), "\"wishful thinking\"");
}

TEST(Qcow2HeaderTest, DirtyAndCorruptImagesAreOnlyRead) {
  for (const u64 bit : {kQcow2Dirty, kQcow2Corrupt}) {
    auto bytes = good_image();
    store_be64(bytes.data() + 72, bit);
    EXPECT_HAS(error_of(bytes), "qemu-img check");
    EXPECT_EQ(error_of(bytes, true), "none");
  }
}

TEST(Qcow2HeaderTest, NamesAndExtensions) {
  auto bytes = good_image();
  store_be64(bytes.data() + 8, 200);
  store_be32(bytes.data() + 16, 5000);
  EXPECT_HAS(error_of(bytes), "not in the header");
  store_be32(bytes.data() + 16, 3);
  EXPECT_HAS(error_of(bytes), "zero byte");
  bytes = good_image();
  store_be32(bytes.data() + 104, 0x12345678);
  store_be32(bytes.data() + 108, 1 << 30);
  EXPECT_HAS(error_of(bytes), "runs out of the header");
  store_be32(bytes.data() + 108, 16);
  EXPECT_EQ(error_of(bytes), "none") << "an unknown extension is passed over";
  FakeFile file;
  EXPECT_FALSE(Qcow2Disk::format(file, {.size = 8 * kMiB, .backing_name = std::string(1024, 'x')}));
  EXPECT_FALSE(Qcow2Disk::format(
      file, {.size = 8 * kMiB, .backing_name = std::string(1000, 'x'), .cluster_bits = 9}));
  EXPECT_FALSE(Qcow2Disk::format(file, {.size = 100}));
  EXPECT_FALSE(Qcow2Disk::format(file, {.size = u64{1} << 60}));
}

TEST(Qcow2HeaderTest, TablesThatLieOnEachOther) {
  auto bytes = good_image();
  store_be64(bytes.data() + 40, load_be64(bytes.data() + 48));  // L1 on the refcount table
  EXPECT_HAS(error_of(bytes), "two of its tables");
  bytes = good_image();
  const u64 l1 = load_be64(bytes.data() + 40);
  store_be64(bytes.data() + l1, l1 | u64{1} << 63);  // an L2 table on the L1 table
  EXPECT_HAS(error_of(bytes), "two of its tables");
  store_be64(bytes.data() + l1, 0x1234);
  EXPECT_HAS(error_of(bytes), "not a table");
}

// An L2 entry that points at a table: nothing is written there, and the image says that it is
// corrupt from then on.
TEST(Qcow2HeaderTest, DataOnATable) {
  auto bytes = good_image();
  const u64 l1 = load_be64(bytes.data() + 40), l2 = 16 * 4096;
  bytes.resize(l2 + 4096);
  store_be64(bytes.data() + l1, l2 | u64{1} << 63);
  store_be64(bytes.data() + l2, l1 | u64{1} << 63);
  store_be64(bytes.data() + l2 + 8, 0x1f0);
  auto owned = std::make_unique<FakeFile>(bytes);
  FakeFile* const file = owned.get();
  auto disk = std::move(*Qcow2Disk::open(std::move(owned)));
  std::vector<u8> data(4096, 'x');
  const iovec buffer{data.data(), data.size()};
  EXPECT_HAS(disk->write({&buffer, 1}, 0).error().chain(), "corrupt");
  EXPECT_EQ(load_be64(file->now.data() + 72), kQcow2Corrupt);
  EXPECT_HAS(disk->write({&buffer, 1}, 1 * kMiB).error().chain(), "corrupt");
  EXPECT_HAS(disk->read({&buffer, 1}, 4096).error().chain(), "damaged");
}

TEST(Qcow2HeaderTest, AFullHostIsAnErrorAndNoDamage) {
  auto owned = std::make_unique<FakeFile>(good_image());
  FakeFile* const file = owned.get();
  file->limit = file->size() + 20 * 4096;
  std::vector<u8> kept;
  file->keep = &kept;
  auto disk = std::move(*Qcow2Disk::open(std::move(owned)));
  std::vector<u8> data(4096, 'x');
  const iovec buffer{data.data(), data.size()};
  int good = 0, full = 0;
  for (u64 i = 0; i < 64; ++i) {
    const auto done = disk->write({&buffer, 1}, i * 64 * kKiB);
    if (!done) EXPECT_EQ(done.error().error_number(), ENOSPC);
    ++(done ? good : full);
    if (i % 16 == 15) EXPECT_TRUE(disk->flush()) << "what was taken is still made stable";
  }
  EXPECT_GT(good, 10);
  EXPECT_GT(full, 10);
  file->limit = ~u64{0};
  EXPECT_TRUE(disk->write({&buffer, 1}, 60 * 64 * kKiB)) << "space again, works again";
  EXPECT_TRUE(disk->flush());
  disk.reset();
  FakeFile after(kept);
  const auto check = testing::check_image(after);
  EXPECT_EQ(check.errors, 0u) << check.first;
  EXPECT_EQ(check.leaks, 0u);
}

}  // namespace
}  // namespace smol::storage

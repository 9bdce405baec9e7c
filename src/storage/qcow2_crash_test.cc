// The image after a crash: random operations, a crash that keeps any part of what was not synced,
// then every sector must have a value that it had since the last flush, and no table may refer to
// what is not counted. Several lives an image, so that what one crash leaves is built upon.
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>

#include "base/fd.h"
#include "base/log.h"
#include "storage/fake_file.h"
#include "storage/qcow2.h"

namespace smol::storage {
namespace testing {

ImageCheck check_image(File& file) {
  ImageCheck check;
  const auto header = Qcow2Header::read(file);
  if (!header) return {.errors = 1, .first = header.error().chain()};
  const u64 cluster = header->cluster_size();
  const auto note = [&](std::string text) {
    if (check.errors++ == 0) check.first = std::move(text);
  };
  const auto load_table = [&](u64 offset, u64 size) {
    std::vector<u8> bytes(size);
    if (!file.read_bytes(bytes, offset, AtEnd::kZero)) note("unreadable");
    return bytes;
  };
  std::map<u64, u64> references;
  const auto refer = [&](u64 offset, u64 size) {
    for (u64 at = 0; at < size; at += cluster) ++references[(offset + at) / cluster];
  };
  const auto table =
      load_table(header->refcount_table_offset, u64{header->refcount_table_clusters} * cluster);
  const u64 per_block = cluster * 8 >> header->refcount_order;
  std::map<u64, std::vector<u8>> blocks;
  for (u64 i = 0; i < table.size() / 8; ++i)
    if (const u64 at = load_be64(table.data() + 8 * i); at != 0) {
      blocks[i] = load_table(at, cluster);
      refer(at, cluster);
    }
  const auto count_of = [&](u64 index) -> u64 {
    const auto found = blocks.find(index / per_block);
    if (found == blocks.end()) return 0;
    return load_refcount(found->second.data(), header->refcount_order, index % per_block);
  };
  refer(0, cluster);
  refer(header->refcount_table_offset, table.size());
  refer(header->l1_offset, u64{header->l1_size} * 8);
  const auto l1 = load_table(header->l1_offset, u64{header->l1_size} * 8);
  constexpr u64 kMask = 0x00fffffffffffe00;
  const auto follow = [&](u64 entry, std::string_view what) {
    if ((entry & kMask) == 0) return;
    refer(entry & kMask, cluster);
    const bool copied = entry >> 63 != 0;
    if (copied != (count_of((entry & kMask) / cluster) == 1))
      note(fmt::format("{} {:#x}: COPIED {} with {} references", what, entry, copied,
                       count_of((entry & kMask) / cluster)));
  };
  for (u64 i = 0; i < header->l1_size; ++i) {
    const u64 entry = load_be64(l1.data() + 8 * i);
    follow(entry, "L1 entry");
    if ((entry & kMask) == 0) continue;
    const auto l2 = load_table(entry & kMask, cluster);
    for (u64 j = 0; j < cluster / 8; ++j) follow(load_be64(l2.data() + 8 * j), "L2 entry");
  }
  for (const auto& [index, count] : references)
    if (count_of(index) < count)
      note(fmt::format("cluster {} has {} references and a count of {}", index, count,
                       count_of(index)));
  for (const auto& [block, bytes] : blocks)
    for (u64 i = 0; i < per_block; ++i) {
      const u64 index = block * per_block + i;
      const auto found = references.find(index);
      if (count_of(index) > (found == references.end() ? 0 : found->second)) ++check.leaks;
    }
  check.clusters = references.size();
  return check;
}

}  // namespace testing

namespace {

using testing::check_image;
using testing::FakeFile;

// What a sector may hold: its value, and every value that it had since the last flush.
struct Model {
  explicit Model(u64 sectors) : now(sectors), maybe(sectors) {}
  void set(u64 sector, u64 tag) {
    maybe[sector].push_back(now[sector]);
    now[sector] = tag;
  }
  void flushed() {
    for (auto& values : maybe) values.clear();
  }
  bool allows(u64 sector, u64 tag) const {
    return tag == now[sector] || std::ranges::find(maybe[sector], tag) != maybe[sector].end();
  }
  std::vector<u64> now;
  std::vector<std::vector<u64>> maybe;
};

struct Life {
  std::unique_ptr<Qcow2Disk> disk;
  FakeFile* file = nullptr;
  Model& model;
  std::mt19937_64& random;
  u64& next_tag;

  static std::vector<u8> content(u64 tag) {
    std::vector<u8> bytes(512);
    for (u64 i = 0; i < 512; i += 8) base::store(bytes.data() + i, tag);
    return bytes;
  }
  u64 sectors() const { return model.now.size(); }
  // A place and a length, mostly short, sometimes long.
  std::pair<u64, u64> place() {
    const u64 first = random() % sectors();
    const u64 most = random() % 8 == 0 ? 400 : 12;
    return {first, std::min(sectors() - first, 1 + random() % most)};
  }
  void write() {
    const auto [first, count] = place();
    const u64 tag = ++next_tag;
    std::vector<u8> bytes;
    for (u64 i = 0; i < count; ++i) {
      const auto sector = content(tag);
      bytes.insert(bytes.end(), sector.begin(), sector.end());
    }
    // In two buffers, cut anywhere.
    const u64 cut = random() % bytes.size();
    const iovec buffers[] = {{bytes.data(), cut}, {bytes.data() + cut, bytes.size() - cut}};
    const bool done = disk->write(buffers, first * 512).has_value();
    for (u64 i = 0; i < count; ++i) {
      if (done) {
        model.set(first + i, tag);
      } else {
        model.maybe[first + i].push_back(tag);
      }
    }
  }
  void zero() {
    const auto [first, count] = place();
    const bool done = disk->write_zeroes(first * 512, count * 512, random() % 2 == 0).has_value();
    for (u64 i = 0; i < count; ++i) {
      if (done) {
        model.set(first + i, 0);
      } else {
        model.maybe[first + i].push_back(0);
      }
    }
  }
  void discard() {
    const auto [first, count] = place();
    (void)disk->discard(first * 512, count * 512);
    for (u64 i = 0; i < count; ++i) {
      const u64 is = read(first + i);
      EXPECT_TRUE(is == 0 || is == model.now[first + i]);
      model.maybe[first + i].push_back(0);
      model.set(first + i, is);
    }
  }
  void flush() {
    if (disk->flush()) model.flushed();
  }
  u64 read(u64 sector) {
    std::vector<u8> bytes(512);
    const iovec buffer{bytes.data(), bytes.size()};
    const bool tried = disk->try_read({&buffer, 1}, sector * 512);
    if (!tried && !disk->read({&buffer, 1}, sector * 512)) return ~u64{0};
    const u64 tag = base::load<u64>(bytes.data());
    if (bytes != content(tag)) return ~u64{0};
    return tag;
  }
  void step() {
    const u64 kind = random() % 100;
    if (kind < 62) return write();
    if (kind < 72) return zero();
    if (kind < 82) return discard();
    if (kind < 94) {
      const u64 sector = random() % sectors();
      const u64 is = read(sector);
      if (!file->failed()) EXPECT_EQ(is, model.now[sector]) << "sector " << sector;
      return;
    }
    flush();
  }
};

struct Shape {
  u32 cluster_bits, refcount_order, version;
  u64 sectors;
};

void qemu_check(const std::vector<u8>& bytes) {
  if (std::system("command -v qemu-img >/dev/null") != 0) return;
  std::string path = ::testing::TempDir() + "/crash.XXXXXX";
  const int fd = ::mkstemp(path.data());
  ASSERT_GE(fd, 0);
  ASSERT_TRUE(base::write_all(fd, bytes, path));
  ::close(fd);
  const int status =
      std::system(("qemu-img check -q -f qcow2 " + path + " >/dev/null 2>&1").c_str());
  // 0: clean, 3: leaks only.
  EXPECT_TRUE(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 3) << WEXITSTATUS(status);
  ::unlink(path.c_str());
}

// crashes: of 4 lives.
void run_lives(u64 seed, const Shape& shape, int lives, u64 crashes = 3) {
  base::set_log_level(base::LogLevel(-1));  // each crash would be a line
  std::mt19937_64 random(seed);
  FakeFile first;
  ASSERT_TRUE(Qcow2Disk::format(first, {.size = shape.sectors * 512,
                                        .cluster_bits = shape.cluster_bits,
                                        .refcount_order = shape.refcount_order,
                                        .version = shape.version}));
  std::vector<u8> bytes = first.now;
  Model model(shape.sectors);
  u64 next_tag = 0;
  for (int life = 0; life < lives; ++life) {
    auto owned = std::make_unique<FakeFile>(bytes);
    FakeFile* const file = owned.get();
    auto disk = Qcow2Disk::open(std::move(owned));
    ASSERT_TRUE(disk) << disk.error().chain();
    Life now{std::move(*disk), file, model, random, next_tag};
    for (u64 s = 0; s < shape.sectors; ++s) {
      const u64 is = now.read(s);
      ASSERT_TRUE(model.allows(s, is)) << "seed " << seed << " life " << life << " sector " << s
                                       << " is " << is << ", was " << model.now[s];
      model.now[s] = is;
    }
    model.flushed();  // what is in the file now is stable
    const bool close_well = random() % 4 >= crashes;
    if (!close_well) file->fail_after(1 + random() % 600);
    for (int i = 0; i < 150 && !file->failed(); ++i) now.step();
    if (close_well) {
      file->keep = &bytes;
      now.disk.reset();
      model.flushed();
    } else {
      bytes = file->crashed(random);
      file->fail_after(0);
    }
    FakeFile after(bytes);
    const auto check = check_image(after);
    ASSERT_EQ(check.errors, 0u) << "seed " << seed << " life " << life << ": " << check.first;
    if (crashes == 0) ASSERT_EQ(check.leaks, 0u) << "seed " << seed << " life " << life;
    if (life % 8 == 7) qemu_check(bytes);
  }
}

TEST(Qcow2CrashTest, SmallClusters) {
  for (u64 seed = 1; seed <= 12; ++seed) run_lives(seed, {9, 4, 3, 3000}, 16);
}
TEST(Qcow2CrashTest, PagesAsClusters) {
  for (u64 seed = 100; seed <= 108; ++seed) run_lives(seed, {12, 1, 3, 8000}, 16);
}
TEST(Qcow2CrashTest, Version2) {
  for (u64 seed = 200; seed <= 206; ++seed) run_lives(seed, {10, 4, 2, 3000}, 16);
}
TEST(Qcow2CrashTest, WideRefcountsGrowTheTable) {
  for (u64 seed = 300; seed <= 305; ++seed) run_lives(seed, {9, 6, 3, 9000}, 16);
}
TEST(Qcow2CrashTest, NothingLeaksWithoutACrash) {
  for (u64 seed = 400; seed <= 403; ++seed) {
    run_lives(seed, {9, 4, 3, 3000}, 8, 0);
    run_lives(seed, {12, 0, 3, 3000}, 8, 0);
    run_lives(seed, {16, 4, 2, 6000}, 8, 0);
  }
}

}  // namespace
}  // namespace smol::storage

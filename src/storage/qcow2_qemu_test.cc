// Both directions against QEMU's own tools (qemu-img, qemu-io; skipped without them): images that
// one side made and changed are read by the other, and qemu-img check finds nothing wrong.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>

#include "base/fd.h"
#include "storage/open_disk.h"
#include "storage/qcow2.h"

namespace smol::storage {
namespace {

int shell(const std::string& command) {
  const int status = std::system((command + " >/dev/null 2>&1").c_str());
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

constexpr u64 kDiskSize = 3 * kMiB + 1536;

struct Qcow2QemuTest : ::testing::Test {
  void SetUp() override {
    if (shell("command -v qemu-img && command -v qemu-io") != 0) GTEST_SKIP() << "no qemu-utils";
    std::string pattern = ::testing::TempDir() + "/qcow2.XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder = pattern;
    image = folder + "/a.qcow2";
  }
  void TearDown() override {
    if (!folder.empty()) std::filesystem::remove_all(folder);
  }

  std::unique_ptr<Disk> open(Access access = Access::kReadWrite) {
    auto disk = open_disk(
        {.path = image, .access = access, .type = ImageType::kQcow2, .backing_files = true});
    EXPECT_TRUE(disk) << disk.error().chain();
    return disk ? std::move(*disk) : nullptr;
  }
  std::pair<u64, u64> place() {
    const u64 sectors = model.size() / 512;
    const u64 first = random() % sectors;
    const u64 count = std::min(sectors - first, 1 + random() % (random() % 4 == 0 ? 900 : 40));
    return {first * 512, count * 512};
  }
  void fill(u64 offset, u64 size, u8 value) {
    std::fill_n(model.begin() + static_cast<std::ptrdiff_t>(offset), size, value);
  }
  void our_operations(int count) {
    const auto disk = open();
    ASSERT_NE(disk, nullptr);
    ASSERT_EQ(disk->size(), model.size());
    for (int i = 0; i < count; ++i) {
      const auto [offset, size] = place();
      const u64 kind = random() % 10;
      if (kind < 6) {
        std::vector<u8> bytes(size, static_cast<u8>(random() % 255 + 1));
        const iovec buffer{bytes.data(), bytes.size()};
        const auto done = disk->write({&buffer, 1}, offset);
        ASSERT_TRUE(done) << done.error().chain();
        fill(offset, size, bytes[0]);
      } else if (kind < 8) {
        const auto done = disk->write_zeroes(offset, size, random() % 2 == 0);
        ASSERT_TRUE(done) << done.error().chain();
        fill(offset, size, 0);
      } else if (kind < 9) {
        ASSERT_TRUE(disk->discard(offset, size));
        const iovec buffer{model.data() + offset, size};
        ASSERT_TRUE(disk->read({&buffer, 1}, offset));
      } else {
        ASSERT_TRUE(disk->flush());
      }
    }
  }
  // Byte patterns, so that qemu-io can be told what to write.
  void qemu_operations(int count) {
    std::string command = "qemu-io -f qcow2";
    for (int i = 0; i < count; ++i) {
      const auto [offset, size] = place();
      const u8 value = static_cast<u8>(random() % 255 + 1);
      if (random() % 4 == 0) {
        command += fmt::format(" -c 'write -z {} {} {}'", random() % 2 ? "-u" : "", offset, size);
        fill(offset, size, 0);
      } else {
        command += fmt::format(" -c 'write -P {} {} {}'", value, offset, size);
        fill(offset, size, value);
      }
    }
    ASSERT_EQ(shell(command + " " + image), 0);
  }
  void expect_ours_reads() {
    const auto disk = open(Access::kReadOnly);
    ASSERT_NE(disk, nullptr);
    std::vector<u8> bytes(model.size());
    const iovec buffer{bytes.data(), bytes.size()};
    const auto done = disk->read({&buffer, 1}, 0);
    ASSERT_TRUE(done) << done.error().chain();
    ASSERT_TRUE(bytes == model) << "at " << std::ranges::mismatch(bytes, model).in1 - bytes.begin();
  }
  void expect_qemu_reads() {
    ASSERT_EQ(shell("qemu-img check -f qcow2 " + image), 0) << "errors or leaks";
    const std::string raw = folder + "/out.raw";
    ASSERT_EQ(shell("qemu-img convert -f qcow2 -O raw " + image + " " + raw), 0);
    const auto bytes = base::read_file(raw);
    ASSERT_TRUE(bytes);
    ASSERT_TRUE(*bytes == model) << "at "
                                 << std::ranges::mismatch(*bytes, model).in1 - bytes->begin();
  }
  void both_ways(int rounds) {
    for (int round = 0; round < rounds; ++round) {
      ASSERT_NO_FATAL_FAILURE(our_operations(40));
      ASSERT_NO_FATAL_FAILURE(expect_qemu_reads()) << "round " << round;
      ASSERT_NO_FATAL_FAILURE(qemu_operations(12));
      ASSERT_NO_FATAL_FAILURE(expect_ours_reads()) << "round " << round;
    }
  }
  // A raw file of compressible and other content, which is the model then.
  std::string write_raw(const std::string& name, u64 size) {
    model.resize(size);
    for (u64 at = 0; at < size; at += 512) {
      const u64 kind = random() % 3;
      for (u64 i = 0; i < 512; ++i)
        model[at + i] = kind == 0 ? u8{0} : static_cast<u8>(kind == 1 ? at / 512 : random());
    }
    const std::string path = folder + "/" + name;
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(model.data()), static_cast<std::streamsize>(size));
    return path;
  }

  std::string folder, image;
  std::vector<u8> model = std::vector<u8>(kDiskSize);
  std::mt19937_64 random{42};
};

TEST_F(Qcow2QemuTest, ImagesOfQemu) {
  for (const char* options :
       {"cluster_size=512", "cluster_size=4096,refcount_bits=1", "cluster_size=65536",
        "cluster_size=2M", "compat=0.10,cluster_size=1024", "cluster_size=512,refcount_bits=64",
        "cluster_size=8192,lazy_refcounts=on", "cluster_size=16384,preallocation=metadata",
        "cluster_size=4096,refcount_bits=8"}) {
    SCOPED_TRACE(options);
    std::ranges::fill(model, u8{0});
    ASSERT_EQ(shell(fmt::format("qemu-img create -f qcow2 -o {} {} {}", options, image, kDiskSize)),
              0);
    ASSERT_NO_FATAL_FAILURE(both_ways(3));
    std::filesystem::remove(image);
  }
}

TEST_F(Qcow2QemuTest, OurImages) {
  ASSERT_TRUE(Qcow2Disk::create(image, {.size = kDiskSize}));
  ASSERT_NO_FATAL_FAILURE(both_ways(4));
  EXPECT_FALSE(Qcow2Disk::create(image, {.size = kDiskSize})) << "it is there";
}

TEST_F(Qcow2QemuTest, Compressed) {
  for (const char* options :
       {"compression_type=zlib", "compression_type=zstd", "compression_type=zlib,cluster_size=512",
        "compression_type=zstd,cluster_size=2M"}) {
    SCOPED_TRACE(options);
    const std::string raw = write_raw("in.raw", kDiskSize);
    ASSERT_EQ(
        shell(fmt::format("qemu-img convert -c -f raw -O qcow2 -o {} {} {}", options, raw, image)),
        0);
    ASSERT_NO_FATAL_FAILURE(expect_ours_reads());
    ASSERT_NO_FATAL_FAILURE(both_ways(3));
  }
}

TEST_F(Qcow2QemuTest, SnapshotsKeepTheirData) {
  ASSERT_EQ(
      shell(fmt::format("qemu-img create -f qcow2 -o cluster_size=4096 {} {}", image, kDiskSize)),
      0);
  ASSERT_NO_FATAL_FAILURE(our_operations(60));
  const std::vector<u8> then = model;
  ASSERT_EQ(shell("qemu-img snapshot -c one " + image), 0);
  ASSERT_NO_FATAL_FAILURE(both_ways(3));
  ASSERT_EQ(shell("qemu-img snapshot -c two " + image), 0);
  ASSERT_NO_FATAL_FAILURE(both_ways(2));
  EXPECT_NE(open()->resize(kDiskSize * 2).error().chain().find("snapshots"), std::string::npos);
  ASSERT_EQ(shell("qemu-img convert -f qcow2 -l snapshot.name=one -O raw -U " + image + " " +
                  folder + "/one.raw"),
            0);
  EXPECT_TRUE(*base::read_file(folder + "/one.raw") == then);
}

TEST_F(Qcow2QemuTest, OverBackingFiles) {
  for (const char* format : {"raw", "qcow2"}) {
    for (const char* compat : {"1.1", "0.10"}) {
      SCOPED_TRACE(fmt::format("{} {}", format, compat));
      const std::string raw = write_raw("base.raw", 2 * kMiB + 512);
      if (format == std::string("qcow2"))
        ASSERT_EQ(
            shell("qemu-img convert -c -f raw -O qcow2 " + raw + " " + folder + "/base.qcow2"), 0);
      ASSERT_EQ(shell(fmt::format("qemu-img create -f qcow2 -o compat={} -b base.{} -F {} {} {}",
                                  compat, format, format, image, kDiskSize)),
                0);
      model.resize(kDiskSize);
      ASSERT_NO_FATAL_FAILURE(expect_ours_reads());
      ASSERT_NO_FATAL_FAILURE(both_ways(3));
    }
  }
}

TEST_F(Qcow2QemuTest, OurOverlays) {
  write_raw("base.raw", 2 * kMiB);
  ASSERT_TRUE(Qcow2Disk::create(
      image, {.size = kDiskSize, .backing_name = "base.raw", .backing_format = "raw"}));
  model.resize(kDiskSize);
  ASSERT_NO_FATAL_FAILURE(expect_qemu_reads());
  ASSERT_NO_FATAL_FAILURE(both_ways(3));
}

TEST_F(Qcow2QemuTest, Growing) {
  for (const char* options :
       {"cluster_size=512", "cluster_size=65536", "cluster_size=4096,compat=0.10"}) {
    SCOPED_TRACE(options);
    model.assign(kDiskSize, 0);
    ASSERT_EQ(shell(fmt::format("qemu-img create -f qcow2 -o {} {} {}", options, image, kDiskSize)),
              0);
    ASSERT_NO_FATAL_FAILURE(our_operations(20));
    for (u64 size : {kDiskSize + 512, kDiskSize + 40960, 3 * kDiskSize, 40 * kMiB}) {
      {
        const auto disk = open();
        const auto done = disk->resize(size);
        ASSERT_TRUE(done) << done.error().chain();
        EXPECT_EQ(disk->size(), size);
        EXPECT_FALSE(disk->resize(size - 512));
        EXPECT_FALSE(disk->resize(size + 100));
      }
      model.resize(size);
      ASSERT_NO_FATAL_FAILURE(expect_qemu_reads()) << size;
      ASSERT_NO_FATAL_FAILURE(our_operations(20));
      ASSERT_NO_FATAL_FAILURE(expect_qemu_reads()) << size;
    }
    std::filesystem::remove(image);
  }
}

TEST_F(Qcow2QemuTest, GrowingBehindALongBackingFile) {
  write_raw("base.raw", 2 * kMiB);
  ASSERT_EQ(shell(fmt::format("qemu-img create -f qcow2 -b base.raw -F raw {} 1049088", image)), 0);
  {
    const auto disk = open();
    const auto done = disk->resize(3 * kMiB);
    ASSERT_TRUE(done) << done.error().chain();
  }
  model.resize(1049088);
  model.resize(3 * kMiB);
  ASSERT_NO_FATAL_FAILURE(expect_qemu_reads());
  ASSERT_NO_FATAL_FAILURE(expect_ours_reads());
}

TEST_F(Qcow2QemuTest, DirectIo) {
  ASSERT_TRUE(Qcow2Disk::create(image, {.size = kDiskSize}));
  for (int round = 0; round < 3; ++round) {
    auto disk = open_disk({.path = image, .type = ImageType::kQcow2, .direct = true});
    if (!disk) GTEST_SKIP() << disk.error().chain();
    for (int i = 0; i < 40; ++i) {
      const auto [offset, size] = place();
      std::vector<u8> bytes(size, static_cast<u8>(random()));
      const iovec buffer{bytes.data(), bytes.size()};
      ASSERT_TRUE((*disk)->write({&buffer, 1}, offset));
      fill(offset, size, bytes[0]);
    }
    std::vector<u8> bytes(model.size() + 1);
    const iovec buffer{bytes.data() + 1, model.size()};
    ASSERT_TRUE((*disk)->read({&buffer, 1}, 0));
    EXPECT_TRUE(std::equal(model.begin(), model.end(), bytes.begin() + 1));
    disk->reset();
    ASSERT_NO_FATAL_FAILURE(expect_qemu_reads());
  }
}

TEST_F(Qcow2QemuTest, RefusedByName) {
  const auto error_of = [&](const std::string& options) {
    std::filesystem::remove(image);
    EXPECT_EQ(shell(fmt::format("qemu-img create -f qcow2 -o {} {} 8M", options, image)), 0)
        << options;
    const auto disk = open_disk({.path = image, .type = ImageType::kQcow2});
    return disk ? std::string("no error") : disk.error().chain();
  };
  EXPECT_NE(error_of("extended_l2=on,cluster_size=128k").find("extended L2"), std::string::npos);
  EXPECT_NE(error_of("data_file=" + folder + "/data").find("external data file"),
            std::string::npos);
  write_raw("base.raw", 1 * kMiB);
  EXPECT_NE(error_of("backing_file=base.raw,backing_fmt=raw").find("backing_files=on"),
            std::string::npos);
  const auto probed = open_disk({.path = image, .backing_files = true});
  ASSERT_FALSE(probed);
  EXPECT_NE(probed.error().chain().find("say image_type=qcow2"), std::string::npos);
}

TEST_F(Qcow2QemuTest, ChainsAndLoops) {
  write_raw("0.raw", 1 * kMiB);
  const auto make = [&](int i, const std::string& under, const char* format) {
    return Qcow2Disk::create(fmt::format("{}/{}.qcow2", folder, i),
                             {.size = 1 * kMiB, .backing_name = under, .backing_format = format});
  };
  ASSERT_TRUE(make(1, "0.raw", "raw"));
  for (int i = 2; i <= 17; ++i)
    ASSERT_TRUE(make(i, fmt::format("{}/{}.qcow2", i % 2 ? "." : folder, i - 1), "qcow2"));
  const auto open_top = [&](int i) {
    return open_disk({.path = fmt::format("{}/{}.qcow2", folder, i),
                      .type = ImageType::kQcow2,
                      .backing_files = true});
  };
  auto good = open_top(16);
  ASSERT_TRUE(good) << good.error().chain();
  std::vector<u8> bytes(1 * kMiB);
  const iovec buffer{bytes.data(), bytes.size()};
  ASSERT_TRUE((*good)->read({&buffer, 1}, 0));
  EXPECT_TRUE(bytes == model);
  good->reset();  // and its locks
  EXPECT_NE(open_top(17).error().chain().find("more than 16"), std::string::npos)
      << open_top(17).error().chain();
  ASSERT_TRUE(make(30, "31.qcow2", "qcow2"));
  ASSERT_TRUE(make(31, "30.qcow2", "qcow2"));
  EXPECT_NE(open_top(30).error().chain().find("lead back"), std::string::npos);
  ASSERT_TRUE(make(40, "nbd:localhost:1", "raw"));
  EXPECT_NE(open_top(40).error().chain().find("not a plain file name"), std::string::npos);
  ASSERT_TRUE(make(41, "0.raw", ""));
  EXPECT_NE(open_top(41).error().chain().find("no format named"), std::string::npos);
  ASSERT_TRUE(make(42, "none.raw", "raw"));
  EXPECT_NE(open_top(42).error().chain().find("No such file"), std::string::npos);
}

}  // namespace
}  // namespace smol::storage

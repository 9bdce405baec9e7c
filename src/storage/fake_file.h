// For tests: a File in memory that forgets. What was written since the last sync is kept apart, and
// crashed() makes the file that a crash may leave: of those writes any sectors, in any order. Power
// may also fail at a chosen operation, after which everything is an Error. Header only: no
// production library carries it.
#pragma once

#include <algorithm>
#include <memory>
#include <random>
#include <vector>

#include "storage/file.h"

namespace smol::storage::testing {

class FakeFile final : public File {
 public:
  explicit FakeFile(std::vector<u8> bytes = {}) : stable(bytes), now(std::move(bytes)) {}

  ~FakeFile() override {
    if (keep != nullptr) *keep = now;
  }

  const std::string& path() const override { return path_; }
  u64 size() const override { return now.size(); }
  bool read_only() const override { return is_read_only; }
  u32 block_size() const override { return 512; }
  bool grows() const override { return true; }

  Result<> read(std::span<const iovec> buffers, u64 offset, AtEnd at_end) override {
    for (const iovec& buffer : buffers) {
      u8* const into = static_cast<u8*>(buffer.iov_base);
      const u64 there =
          offset < now.size() ? std::min<u64>(buffer.iov_len, now.size() - offset) : 0;
      if (there != buffer.iov_len && at_end == AtEnd::kFail) return fail("the file ends");
      if (there != 0) std::memcpy(into, now.data() + offset, there);
      std::memset(into + there, 0, buffer.iov_len - there);
      offset += buffer.iov_len;
    }
    return {};
  }
  bool try_read(std::span<const iovec> buffers, u64 offset) override {
    return offset % 3 != 0 && read(buffers, offset, AtEnd::kZero).has_value();
  }
  Result<> write(std::span<const iovec> buffers, u64 offset) override {
    TRY(step());
    std::vector<u8> bytes;
    for (const iovec& buffer : buffers) {
      const u8* const from = static_cast<const u8*>(buffer.iov_base);
      bytes.insert(bytes.end(), from, from + buffer.iov_len);
    }
    if (offset + bytes.size() > limit)
      return std::unexpected(Error::from_errno(ENOSPC, "the fake file is full"));
    put(now, offset, bytes);
    for (u64 done = 0; done < bytes.size();) {  // sector by sector
      const u64 count = std::min<u64>(bytes.size() - done, 512 - (offset + done) % 512);
      const auto from = bytes.begin() + static_cast<std::ptrdiff_t>(done);
      pending_.push_back({offset + done, {from, from + static_cast<std::ptrdiff_t>(count)}});
      done += count;
    }
    return {};
  }
  Result<> sync() override {
    TRY(step());
    stable = now;
    pending_.clear();
    return {};
  }
  Result<bool> punch(u64 offset, u64 size) override {
    if (offset >= now.size()) return true;
    const std::vector<u8> zeroes(std::min(size, now.size() - offset));
    const iovec buffer{const_cast<u8*>(zeroes.data()), zeroes.size()};
    TRY(write({&buffer, 1}, offset));
    return true;
  }
  Result<bool> zero(u64 offset, u64 size) override { return punch(offset, size); }
  Result<> set_size(u64 size) override {
    TRY(step());
    now.resize(size);
    stable.resize(size);
    return {};
  }

  // The power fails at the n-th operation from now.
  void fail_after(u64 operations) { left_ = operations; }
  bool failed() const { return left_ == 0; }
  std::vector<u8> crashed(std::mt19937_64& random) const {
    std::vector<u8> bytes = stable;
    std::vector<const Sector*> some;
    const u64 odds = random() % 101;
    for (const Sector& sector : pending_)
      if (random() % 100 < odds) some.push_back(&sector);
    std::ranges::shuffle(some, random);
    for (const Sector* const sector : some) put(bytes, sector->offset, sector->bytes);
    return bytes;
  }

  std::vector<u8> stable, now;
  u64 limit = ~u64{0};  // bytes that fit
  bool is_read_only = false;
  std::vector<u8>* keep = nullptr;  // where the bytes go when the file goes

 private:
  struct Sector {
    u64 offset = 0;
    std::vector<u8> bytes;
  };
  static void put(std::vector<u8>& file, u64 offset, const std::vector<u8>& bytes) {
    if (file.size() < offset + bytes.size()) file.resize(offset + bytes.size());
    std::ranges::copy(bytes, file.begin() + static_cast<std::ptrdiff_t>(offset));
  }
  Result<> step() {
    if (left_ == 0) return fail("the power failed");
    --left_;
    return {};
  }

  std::string path_ = "fake.qcow2";
  std::vector<Sector> pending_;
  u64 left_ = ~u64{0};
};

// Walks all tables of an image and compares them with its refcounts. errors: what would lose data.
struct ImageCheck {
  u64 errors = 0, leaks = 0, clusters = 0;
  std::string first;  // what the first error is
};
ImageCheck check_image(File& file);

}  // namespace smol::storage::testing

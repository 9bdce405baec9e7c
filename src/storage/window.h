// A disk image that lies inside another file: a capsule's root, behind its program. Read-only.
//
// The range may be checked before its bytes are used (a container's digests): the check is asked
// for every read and keeps for itself what it has seen.
#pragma once

#include <functional>

#include "base/fd.h"
#include "storage/file.h"

namespace smol::storage {

struct Window {
  int fd = -1;       // open for reading while the file lives; owned by the caller
  std::string name;  // for messages
  u64 offset = 0;    // of the image in the file, bytes
  u64 size = 0;      // bytes, a multiple of 512 for a disk
  // Any thread; the range is the window's. An Error makes the read fail. Empty: nothing is checked.
  std::function<Result<>(u64 offset, u64 size)> check;
};

class WindowFile final : public File {
 public:
  explicit WindowFile(Window window) : window_(std::move(window)) {}

  const std::string& path() const override { return window_.name; }
  u64 size() const override { return window_.size; }
  bool read_only() const override { return true; }
  u32 block_size() const override { return 512; }
  bool grows() const override { return false; }
  Result<> read(std::span<const iovec> buffers, u64 offset, AtEnd at_end) override;
  bool try_read(std::span<const iovec> buffers, u64 offset) override;
  Result<> write(std::span<const iovec>, u64) override { return refuse(); }
  Result<> sync() override { return {}; }
  Result<bool> punch(u64, u64) override { return false; }
  Result<bool> zero(u64, u64) override { return false; }
  Result<> set_size(u64) override { return refuse(); }

 private:
  Result<> refuse() const { return fail("{} is read-only", window_.name); }
  // The part of a read that lies in the window, checked.
  Result<u64> checked(u64 offset, u64 size) const;

  const Window window_;
};

}  // namespace smol::storage

// Where the loaders read a kernel or an initrd from: a file, or bytes that a payload was
// decompressed to. Reads go straight to their destination, which is guest memory wherever possible:
// nothing is copied twice.
#pragma once

#include <string>

#include "base/fd.h"
#include "base/result.h"
#include "memory/guest_memory.h"

namespace smol::arch::x86_64 {

class ImageSource {
 public:
  virtual ~ImageSource() = default;
  // For messages: the path.
  virtual const std::string& name() const = 0;
  virtual u64 size() const = 0;  // bytes
  // Fills all of `into`; an error when the image ends before that.
  virtual Result<> read(u64 offset, ByteSpan into) const = 0;
  // Fills [start, start+size), which must be RAM, and tells the memory of it. Large pieces are
  // written through the memory's file where that is the same: the kernel then fills fresh pages
  // without clearing and faulting each (measured: 3.7 ms instead of 6.2 for 9 MiB).
  virtual Result<> load(u64 offset, memory::GuestMemory& memory, memory::GuestPhysical start,
                        u64 size) const = 0;
};

class FileImage final : public ImageSource {
 public:
  // A directory or special file is refused by kind.
  static Result<FileImage> open(const std::string& path);
  // `size` bytes from `start` of an open file.
  FileImage(base::UniqueFd file, std::string name, u64 start, u64 size)
      : file_(std::move(file)), name_(std::move(name)), start_(start), size_(size) {}

  const std::string& name() const override { return name_; }
  u64 size() const override { return size_; }
  Result<> read(u64 offset, ByteSpan into) const override;
  Result<> load(u64 offset, memory::GuestMemory& memory, memory::GuestPhysical start,
                u64 size) const override;

 private:
  base::UniqueFd file_;
  std::string name_;
  u64 start_ = 0;
  u64 size_ = 0;
};

// Does not own the bytes.
class BytesImage final : public ImageSource {
 public:
  BytesImage(ConstByteSpan bytes, std::string name) : bytes_(bytes), name_(std::move(name)) {}
  const std::string& name() const override { return name_; }
  u64 size() const override { return bytes_.size(); }
  Result<> read(u64 offset, ByteSpan into) const override;
  Result<> load(u64 offset, memory::GuestMemory& memory, memory::GuestPhysical start,
                u64 size) const override;

 private:
  ConstByteSpan bytes_;
  std::string name_;
};

}  // namespace smol::arch::x86_64

#include "arch/x86_64/image_source.h"

#include <fcntl.h>

namespace smol::arch::x86_64 {
namespace {

Result<> check_bounds(u64 offset, u64 wanted, u64 size, const std::string& name) {
  if (offset <= size && wanted <= size - offset) return {};
  return fail("{} is cut short: it has {} bytes, and {} bytes at offset {} are needed", name, size,
              wanted, offset);
}

}  // namespace

Result<FileImage> FileImage::open(const std::string& path) {
  TRY_ASSIGN(base::UniqueFd file, base::open_file(path, O_RDONLY));
  TRY_ASSIGN(const u64 size, base::file_size(file.get(), path));
  return FileImage(std::move(file), path, 0, size);
}

Result<> FileImage::read(u64 offset, ByteSpan into) const {
  TRY(check_bounds(offset, into.size(), size_, name_));
  return base::read_exact_at(file_.get(), into, start_ + offset, name_);
}

Result<> BytesImage::read(u64 offset, ByteSpan into) const {
  TRY(check_bounds(offset, into.size(), bytes_.size(), name_));
  if (!into.empty()) std::memcpy(into.data(), bytes_.data() + offset, into.size());
  return {};
}

}  // namespace smol::arch::x86_64

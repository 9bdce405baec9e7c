#include "arch/x86_64/image_source.h"

#include <fcntl.h>
#include <sys/mman.h>

namespace smol::arch::x86_64 {
namespace {

Result<> check_bounds(u64 offset, u64 wanted, u64 size, const std::string& name) {
  if (offset <= size && wanted <= size - offset) return {};
  return fail("{} is cut short: it has {} bytes, and {} bytes at offset {} are needed", name, size,
              wanted, offset);
}

// Below this a few page faults cost less than mapping and writing.
constexpr u64 kWriteThroughSize = 64 * kKiB;

bool write_through_pays(const memory::GuestMemory& memory, u64 size) {
  return size >= kWriteThroughSize && memory.file_takes_writes();
}

Result<> write_through(memory::GuestMemory& memory, memory::GuestPhysical start,
                       ConstByteSpan bytes) {
  for (const memory::Region& region : memory.regions()) {
    const u64 offset = start.value - region.start.value;
    if (offset >= region.size || bytes.size() > region.size - offset) continue;
    TRY(base::write_all_at(memory.fd(), bytes, region.file_offset + offset, "guest memory"));
    memory.note_written(start, bytes.size());
    return {};
  }
  return fail("guest memory: {} bytes at {:#x} are not RAM", bytes.size(), start.value);
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

Result<> FileImage::load(u64 offset, memory::GuestMemory& memory, memory::GuestPhysical start,
                         u64 size) const {
  TRY(check_bounds(offset, size, size_, name_));
  if (write_through_pays(memory, size)) {
    const u64 first = base::align_down(start_ + offset, kPageSize);
    const u64 skip = start_ + offset - first;
    auto mapping = base::Mapping::map(skip + size, PROT_READ, MAP_PRIVATE | MAP_POPULATE,
                                      file_.get(), first, name_);
    // A file that cannot be mapped is read; one that shrank meanwhile makes the write fail, not us.
    if (mapping) return write_through(memory, start, ConstByteSpan(mapping->data() + skip, size));
  }
  TRY_ASSIGN(const ByteSpan into, memory.slice(start, size));
  TRY(base::read_exact_at(file_.get(), into, start_ + offset, name_));
  memory.note_written(start, size);
  return {};
}

Result<> BytesImage::read(u64 offset, ByteSpan into) const {
  TRY(check_bounds(offset, into.size(), bytes_.size(), name_));
  if (!into.empty()) std::memcpy(into.data(), bytes_.data() + offset, into.size());
  return {};
}

Result<> BytesImage::load(u64 offset, memory::GuestMemory& memory, memory::GuestPhysical start,
                          u64 size) const {
  TRY(check_bounds(offset, size, bytes_.size(), name_));
  const ConstByteSpan bytes = bytes_.subspan(offset, size);
  return write_through_pays(memory, size) ? write_through(memory, start, bytes)
                                          : memory.write(start, bytes);
}

}  // namespace smol::arch::x86_64

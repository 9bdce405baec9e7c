// A whole container with changed bytes whose outer digests are made right again: opening, checking
// and reading it ends in values or errors.
#include <cstdlib>

#include "image/container/format.h"
#include "image/container/writer.h"

namespace {

using namespace smol;
using namespace smol::image;

std::string read_all(int fd) {
  auto size = base::file_size(fd, "fuzz");
  if (!size) std::abort();
  std::string bytes(*size, '\0');
  if (!base::read_exact_at(fd, {reinterpret_cast<u8*>(bytes.data()), bytes.size()}, 0, "fuzz"))
    std::abort();
  return bytes;
}

std::string make() {
  auto fd = base::create_memfd("fuzz", 0);
  auto writer = ContainerWriter::create(fd->get(), "fuzz", 0, {});
  const std::string content(10000, 'x');
  const ConstByteSpan bytes(reinterpret_cast<const u8*>(content.data()), content.size());
  if (!writer->add_bytes(SectionKind::kKernel, "a", bytes, {.zstd_level = 1}) ||
      !writer->add_bytes(SectionKind::kDisk, "b", bytes, {.sparse = true}) || !writer->finish())
    std::abort();
  return read_all(fd->get());
}

// Digests of index, header and trailer over what is there now.
void repair(std::string& bytes) {
  auto* header = reinterpret_cast<FrameHeader*>(bytes.data());
  auto* trailer = reinterpret_cast<FrameTrailer*>(bytes.data() + bytes.size() - kFrameSize);
  const u64 size = padded(header->index_size);
  if (header->index_offset < bytes.size() && size <= bytes.size() - header->index_offset)
    header->index_digest =
        digest_of({reinterpret_cast<u8*>(bytes.data()) + header->index_offset, size});
  header->digest =
      digest_of(base::bytes_of(std::as_const(*header)).first(offsetof(FrameHeader, digest)));
  trailer->header_digest = digest_of(base::bytes_of(std::as_const(*header)));
  trailer->digest =
      digest_of(base::bytes_of(std::as_const(*trailer)).first(offsetof(FrameTrailer, digest)));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  static const std::string good = make();
  static const base::UniqueFd scratch = std::move(*base::create_memfd("scratch", 0));
  std::string bytes = good;
  // Each change: where (in frames, index or anywhere) and what.
  for (std::size_t at = 0; at + 4 <= std::min<std::size_t>(size, 32); at += 4) {
    const u64 where = base::load<u16>(data + at);
    const u64 index = base::load<u64>(good.data() + offsetof(FrameHeader, index_offset));
    const u64 places[] = {where % 128, index + where % 400, where % bytes.size(),
                          bytes.size() - 4096 + where % 64};
    bytes[places[data[at + 2] % 4]] = static_cast<char>(data[at + 3]);
  }
  repair(bytes);
  auto fd = base::create_memfd("fuzz", bytes.size());
  if (!fd || !base::write_all_at(
                 fd->get(), {reinterpret_cast<const u8*>(bytes.data()), bytes.size()}, 0, "fuzz"))
    std::abort();
  auto container = Container::open(std::move(*fd), "fuzz", {});
  if (!container) return 0;
  const bool verified = container->verify_all().has_value();
  for (const Section& section : container->sections()) {
    const auto content = container->read_section(section, kMiB);
    if (content && content->size() != section.size) std::abort();
    if (content && !verified && !container->verify_section(section)) std::abort();
  }
  return 0;
}

// Writing: each section goes through compression and encryption to the file, 1 MiB at a time, and
// its digests are taken on the way; the header comes last, so that a file that was never finished
// is not one.
#include "image/container/writer.h"

#include <fcntl.h>
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include <algorithm>

#include "base/check.h"
#include "image/container/encode.h"
#include "image/container/format.h"

namespace smol::image {

namespace {

constexpr std::string_view kUntrustedComment = "signature of the index of a .smolmachine file";

// The index, and behind it signature and trailer, then the header. index_offset: from base.
Result<> write_frame(int fd, std::string_view name, u64 base, u64 index_offset,
                     const std::string& index, const SecretKey* key,
                     const std::string& trusted_comment) {
  if (std::ranges::any_of(trusted_comment,
                          [](char c) { return static_cast<u8>(c) < 0x20 || c == 0x7f; }) ||
      trusted_comment.size() > 1024)
    return fail("a trusted comment is one line of at most 1024 bytes");
  if (index.size() > kMaxIndexSize)
    return fail("{}: its index would have {} bytes, more than {}", name, index.size(),
                kMaxIndexSize);
  const auto put = [&](std::string bytes, u64 offset) -> Result<Digest> {
    bytes.resize(padded(bytes.size()));
    const ConstByteSpan span(reinterpret_cast<const u8*>(bytes.data()), bytes.size());
    TRY(base::write_all_at(fd, span, base + offset, name));
    return digest_of(span);
  };
  auto header = std::make_unique<FrameHeader>();
  *header = FrameHeader{};
  std::ranges::copy(kHeaderMagic, header->magic);
  header->version = kFormatVersion;
  header->index_offset = index_offset;
  header->index_size = index.size();
  header->signature_offset = index_offset + padded(index.size());
  TRY_ASSIGN(header->index_digest, put(index, index_offset));
  if (key != nullptr) {
    const Signature signature =
        key->sign({reinterpret_cast<const u8*>(index.data()), index.size()}, trusted_comment);
    const std::string text = signature.to_file(kUntrustedComment);
    header->signature_size = text.size();
    TRY_ASSIGN(header->signature_digest, put(text, header->signature_offset));
  }
  const u64 trailer_offset = header->signature_offset + padded(header->signature_size);
  header->container_size = trailer_offset + kFrameSize;
  header->digest =
      digest_of(base::bytes_of(std::as_const(*header)).first(offsetof(FrameHeader, digest)));

  auto trailer = std::make_unique<FrameTrailer>();
  *trailer = FrameTrailer{};
  std::ranges::copy(kTrailerMagic, trailer->magic);
  trailer->version = kFormatVersion;
  trailer->container_size = header->container_size;
  trailer->header_digest = digest_of(base::bytes_of(std::as_const(*header)));
  trailer->digest =
      digest_of(base::bytes_of(std::as_const(*trailer)).first(offsetof(FrameTrailer, digest)));
  TRY(base::write_all_at(fd, base::bytes_of(std::as_const(*trailer)), base + trailer_offset, name));
  if (ftruncate(fd, static_cast<off_t>(base + header->container_size)) != 0)
    return fail_errno("{}: cutting it", name);
  return base::write_all_at(fd, base::bytes_of(std::as_const(*header)), base, name);
}

Result<> copy_bytes(int from, u64 size, int to, std::string_view name) {
  std::vector<u8> buffer(std::min(size, kPieceSize));
  for (u64 done = 0; done < size; done += buffer.size()) {
    buffer.resize(std::min(kPieceSize, size - done));
    TRY(base::read_exact_at(from, buffer, done, name));
    TRY(base::write_all_at(to, buffer, done, name));
  }
  return {};
}

}  // namespace

Result<ContainerWriter> ContainerWriter::create(int fd, std::string file_name, u64 base,
                                                WriterOptions options) {
  if (base % kAlignment != 0) return fail("{}: a container cannot begin at {}", file_name, base);
  init_crypto();
  ContainerWriter writer;
  writer.fd_ = fd;
  writer.file_name_ = std::move(file_name);
  writer.base_ = base;
  writer.next_ = kFrameSize;
  writer.options_ = std::move(options);
  TRY(check_key_source(writer.options_.key_source));
  // A header from an earlier attempt must not outlive this one.
  const std::vector<u8> nothing(kFrameSize);
  TRY(base::write_all_at(fd, nothing, base, writer.file_name_));
  return writer;
}

Result<> ContainerWriter::check_new(SectionKind kind, const std::string& name) const {
  CHECK(!finished_);
  TRY(check_section_name(name));
  if (sections_.size() == kMaxSections)
    return fail("{}: more than {} sections", file_name_, kMaxSections);
  for (const Section& section : sections_) {
    if (section.name == name) return fail("{}: a second section '{}'", file_name_, name);
    if (kind == SectionKind::kConfig && section.kind == kind)
      return fail("{}: a second configuration", file_name_);
  }
  return {};
}

Result<> ContainerWriter::add_bytes(SectionKind kind, const std::string& name, ConstByteSpan bytes,
                                    const SectionOptions& options) {
  SectionBytes source(bytes);
  return add(kind, name, source, options);
}

Result<> ContainerWriter::add_file(SectionKind kind, const std::string& name, int fd, u64 offset,
                                   u64 size, const SectionOptions& options) {
  SectionFile source(fd, offset, size, name);
  return add(kind, name, source, options);
}

Result<> ContainerWriter::add(SectionKind kind, const std::string& name, SectionSource& source,
                              const SectionOptions& options) {
  TRY(check_new(kind, name));
  if (options.zstd_level < 0 || options.zstd_level > 19)
    return fail("zstd has no level {}", options.zstd_level);
  if (options.encrypt && !options_.key)
    return fail("{}: section '{}' has no key to encrypt it with", file_name_, name);
  Section section;
  section.kind = kind;
  section.name = name;
  section.compressed = options.zstd_level > 0;
  section.encrypted = options.encrypt;
  section.sparse = options.sparse;
  section.offset = next_;
  const auto encoded =
      encode_section(section, source, options.zstd_level,
                     options.encrypt ? &*options_.key : nullptr, fd_, base_ + next_, file_name_);
  if (!encoded) return wrap(encoded.error(), "{}: section '{}'", file_name_, name);
  next_ += padded(section.stored_size);
  sections_.push_back(std::move(section));
  return {};
}

Result<> ContainerWriter::add_stored(const Container& from, const Section& section) {
  TRY(check_new(section.kind, section.name));
  if (section.encrypted && from.key_source().check != options_.key_source.check)
    return fail("{}: section '{}' of {} is encrypted with another key", file_name_, section.name,
                from.name());
  std::vector<u8> buffer(kPieceSize);
  for (u64 piece = 0; piece < section.pieces.size(); ++piece) {
    TRY_ASSIGN(const ConstByteSpan bytes, from.read_piece(section, piece, buffer));
    TRY(base::write_all_at(fd_, bytes, base_ + next_ + piece * kPieceSize, file_name_));
  }
  sections_.push_back(section);
  sections_.back().offset = next_;
  next_ += padded(section.stored_size);
  return {};
}

Result<> ContainerWriter::finish(const SecretKey* key, const std::string& trusted_comment) {
  CHECK(!finished_);
  finished_ = true;
  Index index;
  index.created = options_.created;
  index.program_size = base_;
  index.sections = std::move(sections_);
  if (std::ranges::any_of(index.sections, &Section::encrypted))
    index.key_source = options_.key_source;
  if (base_ != 0) {
    TRY_ASSIGN(index.program_digest, digest_of_file(fd_, 0, base_, file_name_));
  }
  return write_frame(fd_, file_name_, base_, next_, write_index(index), key, trusted_comment);
}

Result<> sign_file(const std::string& from, const std::string& to, const SecretKey& key,
                   const std::string& trusted_comment) {
  TRY_ASSIGN(const Container container, Container::open(from, {}));
  struct stat status{};
  if (fstat(container.fd(), &status) != 0) return fail_errno("{}", from);
  const std::string temporary = fmt::format("{}.signing-{}", to, getpid());
  TRY_ASSIGN(const base::UniqueFd out,
             base::open_file(temporary, O_RDWR | O_CREAT | O_EXCL, status.st_mode & 0777));
  const auto result = [&]() -> Result<> {
    const u64 end = container.base() + container.index_offset();
    TRY(copy_bytes(container.fd(), end, out.get(), from));
    TRY(write_frame(out.get(), temporary, container.base(), container.index_offset(),
                    container.index_bytes(), &key, trusted_comment));
    // Whatever the umask is: a capsule stays executable.
    if (fchmod(out.get(), status.st_mode & 0777) != 0) return fail_errno("{}", temporary);
    if (fsync(out.get()) != 0) return fail_errno("{}", temporary);
    if (rename(temporary.c_str(), to.c_str()) != 0)
      return fail_errno("renaming {} to {}", temporary, to);
    return {};
  }();
  if (!result) unlink(temporary.c_str());
  return result;
}

}  // namespace smol::image

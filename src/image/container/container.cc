// Opening: trailer, header, index, signature; then the digests of sections.
#include "image/container/container.h"

#include <fcntl.h>
#include <sys/mman.h>

#include <algorithm>
#include <mutex>
#include <thread>

#include "base/check.h"
#include "image/container/format.h"

namespace smol::image {

namespace {

bool zero(ConstByteSpan bytes) {
  return std::ranges::all_of(bytes, [](u8 byte) { return byte == 0; });
}

// Magic and version of a header or trailer, and its digest over itself.
template <class Frame>
Result<> check_frame(const Frame& frame, std::string_view magic, std::string_view what) {
  const ConstByteSpan bytes = base::bytes_of(frame);
  if (std::string_view(frame.magic, 8) != magic)
    return fail("the {} does not begin with {}", what, magic);
  if (digest_of(bytes.first(offsetof(Frame, digest))) != frame.digest)
    return fail("the {} is damaged", what);
  if (frame.version != kFormatVersion)
    return fail("the {} has version {}; this program knows version {}", what, frame.version,
                kFormatVersion);
  if (frame.flags != 0 || !zero(frame.reserved))
    return fail("the {} has unknown fields; a newer version wrote it", what);
  return {};
}

Result<> check_layout(const FrameHeader& header) {
  const u64 trailer = header.container_size - kFrameSize;
  if (header.index_size > kMaxIndexSize)
    return fail("the index has {} bytes, more than {}", header.index_size, kMaxIndexSize);
  if (header.signature_size > Signature::kMaxText)
    return fail("the signature has {} bytes", header.signature_size);
  if (header.index_offset % kAlignment != 0 || header.index_offset < kFrameSize ||
      header.index_offset > trailer ||
      header.signature_offset != header.index_offset + padded(header.index_size) ||
      header.signature_offset + padded(header.signature_size) != trailer)
    return fail("the header's offsets of index and signature do not fit the file");
  return {};
}

}  // namespace

Result<Container> Container::open(const std::string& path, const VerifyPolicy& policy) {
  TRY_ASSIGN(base::UniqueFd fd, base::open_file(path, O_RDONLY));
  return open(std::move(fd), path, policy);
}

Result<Container> Container::open(base::UniqueFd fd, std::string name, const VerifyPolicy& policy) {
  init_crypto();
  Container container;
  container.fd_ = std::move(fd);
  container.name_ = std::move(name);
  const auto result = [&]() -> Result<> {
    TRY_ASSIGN(container.file_size_, base::file_size(container.fd_.get(), container.name_));
    TRY(container.read_frame());
    TRY(container.read_index());
    return container.read_signature(policy);
  }();
  if (!result) return wrap(result.error(), "{}", container.name_);
  return container;
}

Result<> Container::read_frame() {
  if (file_size_ < 2 * kFrameSize)
    return fail("not a machine file: {} bytes are too few", file_size_);
  const auto trailer = std::make_unique<FrameTrailer>();
  TRY(base::read_exact_at(fd_.get(), base::bytes_of(*trailer), file_size_ - kFrameSize,
                          "the trailer"));
  if (std::string_view(trailer->magic, 8) != kTrailerMagic) {
    char magic[8];
    TRY(base::read_exact_at(fd_.get(), base::bytes_of(magic), 0, "the header"));
    if (std::string_view(magic, 8) == kHeaderMagic)
      return fail("damaged or cut short: the file of {} bytes does not end with a trailer",
                  file_size_);
    return fail("not a machine file: it does not end with a trailer");
  }
  TRY(check_frame(*trailer, kTrailerMagic, "trailer"));
  if (trailer->container_size > file_size_ || trailer->container_size < 2 * kFrameSize)
    return fail("the trailer says {} bytes, but the file has {}", trailer->container_size,
                file_size_);
  if (trailer->container_size % kAlignment != 0 || file_size_ % kAlignment != 0)
    return fail("{} bytes of container in a file of {} are not whole pages",
                trailer->container_size, file_size_);
  size_ = trailer->container_size;
  base_ = file_size_ - size_;

  const auto header = std::make_unique<FrameHeader>();
  TRY(base::read_exact_at(fd_.get(), base::bytes_of(*header), base_, "the header"));
  TRY(check_frame(*header, kHeaderMagic, "header"));
  if (digest_of(base::bytes_of(*header)) != trailer->header_digest)
    return fail("the header is not the one that the trailer belongs to");
  if (header->container_size != size_)
    return fail("the header says {} bytes, the trailer {}", header->container_size, size_);
  TRY(check_layout(*header));
  index_offset_ = header->index_offset;
  index_size_ = header->index_size;
  index_digest_ = header->index_digest;
  signature_size_ = header->signature_size;
  signature_digest_ = header->signature_digest;
  return {};
}

Result<> Container::read_index() {
  std::vector<u8> bytes(padded(index_size_));
  TRY(base::read_exact_at(fd_.get(), bytes, base_ + index_offset_, "the index"));
  if (digest_of(bytes) != index_digest_) return fail("the index is damaged");
  if (!zero(ConstByteSpan(bytes).subspan(index_size_)))
    return fail("the index is not padded with zeros");
  bytes.resize(index_size_);
  TRY_ASSIGN(Index index, parse_index(bytes, index_offset_));
  if (index.program_size != base_)
    return fail("the index belongs behind a program of {} bytes, but {} are before it",
                index.program_size, base_);
  index_bytes_.assign(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  created_ = index.created;
  program_digest_ = index.program_digest;
  key_source_ = index.key_source;
  sections_ = std::move(index.sections);
  for (const Section& section : sections_)
    checked_.push_back(std::make_unique<std::atomic<u8>[]>(section.pieces.size()));
  return {};
}

Result<SignatureState> check_signature(const std::string& text, const std::string& index_bytes,
                                       const VerifyPolicy& policy) {
  SignatureState state;
  if (text.empty()) {
    if (policy.require_signed) return fail("it is not signed, and only signed files are allowed");
    return state;
  }
  state.present = true;
  state.text = text;
  TRY_ASSIGN(const Signature signature, Signature::parse(text));
  state.key_id = signature.key_id;
  state.trusted_comment = signature.trusted_comment;
  const ConstByteSpan message(reinterpret_cast<const u8*>(index_bytes.data()), index_bytes.size());
  std::optional<Error> wrong;
  for (const PublicKey& key : policy.trusted_keys) {
    if (key.key_id != signature.key_id) continue;
    if (auto right = verify(signature, key, message); right)
      state.trusted = true;
    else
      wrong = right.error();
  }
  if (!state.trusted && wrong) return std::unexpected(*std::move(wrong));
  if (!state.trusted && policy.require_signed)
    return fail("it is signed by key {}, which is not trusted", key_id_text(signature.key_id));
  return state;
}

Result<> Container::read_signature(const VerifyPolicy& policy) {
  std::string text;
  if (signature_size_ == 0) {
    if (signature_digest_ != Digest{}) return fail("a digest of a signature that is not there");
  } else {
    std::vector<u8> bytes(padded(signature_size_));
    TRY(base::read_exact_at(fd_.get(), bytes, base_ + index_offset_ + padded(index_size_),
                            "the signature"));
    if (digest_of(bytes) != signature_digest_) return fail("the signature is damaged");
    if (!zero(ConstByteSpan(bytes).subspan(signature_size_)))
      return fail("the signature is not padded with zeros");
    text.assign(reinterpret_cast<const char*>(bytes.data()), signature_size_);
  }
  TRY_ASSIGN(signature_, check_signature(text, index_bytes_, policy));
  return {};
}

const Section* Container::find(SectionKind kind) const {
  const auto found = std::ranges::find(sections_, kind, &Section::kind);
  return found == sections_.end() ? nullptr : &*found;
}

const Section* Container::find(std::string_view name) const {
  const auto found = std::ranges::find(sections_, name, &Section::name);
  return found == sections_.end() ? nullptr : &*found;
}

bool Container::has_encrypted() const {
  return std::ranges::any_of(sections_, &Section::encrypted);
}

Result<> Container::unlock_with_passphrase(std::string_view passphrase) {
  auto key = key_from_passphrase(key_source_, passphrase);
  if (!key) return wrap(key.error(), "{}", name_);
  key_.emplace(*std::move(key));
  return {};
}

Result<> Container::unlock_with_key_file(const std::string& path) {
  auto key = key_from_file(key_source_, path);
  if (!key) return wrap(key.error(), "{}", name_);
  key_.emplace(*std::move(key));
  return {};
}

Result<u64> Container::file_offset(const Section& section) const {
  if (!section.plain()) return fail("{}: section '{}' is not stored as it is", name_, section.name);
  return base_ + section.offset;
}

Result<base::Mapping> Container::map_section(const Section& section, Check check) const {
  TRY_ASSIGN(const u64 offset, file_offset(section));
  if (section.size == 0) return fail("{}: section '{}' is empty", name_, section.name);
  if (check == Check::kNow) TRY(check_range(section, 0, section.size));
  return base::Mapping::map(section.size, PROT_READ, MAP_PRIVATE, fd_.get(), offset,
                            fmt::format("{}: section '{}'", name_, section.name));
}

Result<ConstByteSpan> Container::read_piece(const Section& section, u64 piece,
                                            ByteSpan buffer) const {
  const u64 from = piece * kPieceSize;
  const ByteSpan bytes = buffer.first(std::min(kPieceSize, padded(section.stored_size) - from));
  TRY(base::read_exact_at(fd_.get(), bytes, base_ + section.offset + from, name_));
  if (digest_of(bytes) != section.pieces[piece])
    return fail("{}: section '{}' is damaged (within {} bytes at {})", name_, section.name,
                bytes.size(), from);
  return bytes;
}

Result<> Container::check_range(const Section& section, u64 offset, u64 size) const {
  if (size == 0) return {};
  if (offset > section.stored_size || size > section.stored_size - offset)
    return fail("{}: section '{}' has no {} bytes at {}", name_, section.name, size, offset);
  const std::size_t number = static_cast<std::size_t>(&section - sections_.data());
  CHECK(number < sections_.size());
  std::vector<u8> buffer;
  for (u64 piece = offset / kPieceSize; piece <= (offset + size - 1) / kPieceSize; ++piece) {
    std::atomic<u8>& checked = checked_[number][piece];
    if (checked.load(std::memory_order_acquire) != 0) continue;
    buffer.resize(kPieceSize);
    TRY(read_piece(section, piece, buffer));
    checked.store(1, std::memory_order_release);
  }
  return {};
}

Result<> Container::verify_section(const Section& section, unsigned threads) const {
  std::atomic<u64> next{0};
  std::mutex mutex;
  Result<> result;
  const auto work = [&] {
    std::vector<u8> buffer(kPieceSize);
    for (u64 piece = next++; piece < section.pieces.size(); piece = next++) {
      auto checked = read_piece(section, piece, buffer);
      if (checked) continue;
      const std::lock_guard lock(mutex);
      if (result) result = std::unexpected(checked.error());
      next = section.pieces.size();
    }
  };
  std::vector<std::thread> helpers;
  for (unsigned i = 1; i < std::min<u64>(threads, section.pieces.size()); ++i)
    helpers.emplace_back(work);
  work();
  for (std::thread& helper : helpers) helper.join();
  return result;
}

Result<> Container::verify_program() const {
  if (base_ == 0) {
    if (program_digest_ != Digest{})
      return fail("{}: a digest of a program that is not there", name_);
    return {};
  }
  TRY_ASSIGN(const Digest digest, digest_of_file(fd_.get(), 0, base_, name_));
  if (digest != program_digest_) return fail("{}: the program is damaged", name_);
  return {};
}

Result<> Container::verify_all(unsigned threads) const {
  TRY(verify_program());
  for (const Section& section : sections_) TRY(verify_section(section, threads));
  return {};
}

}  // namespace smol::image

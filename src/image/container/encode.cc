#include "image/container/encode.h"

#include <sodium.h>
#include <unistd.h>
#include <zstd.h>

#include <algorithm>

#include "image/container/format.h"

namespace smol::image {

namespace {

// Granularity of holes. Found by reading, not by the host's file system, so that it is the same
// everywhere.
constexpr u64 kHoleSize = 64 * kKiB;
constexpr u64 kBlock = 256 * kKiB;  // bytes that are read at once; a multiple of kHoleSize

class Stage {
 public:
  virtual ~Stage() = default;
  virtual Result<> push(ConstByteSpan bytes) = 0;
  virtual Result<> finish() = 0;
};

// The last stage: bytes to the file, and their digests.
class Storer : public Stage {
 public:
  Storer(Section& section, int to, u64 offset, std::string_view name)
      : section_(section), to_(to), offset_(offset), name_(name) {
    piece_.reserve(kPieceSize);
  }
  Result<> push(ConstByteSpan bytes) override {
    while (!bytes.empty()) {
      const std::size_t size = std::min(bytes.size(), kPieceSize - piece_.size());
      piece_.insert(piece_.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size));
      bytes = bytes.subspan(size);
      section_.stored_size += size;
      if (piece_.size() == kPieceSize) TRY(flush());
    }
    return {};
  }
  Result<> finish() override {
    if (!piece_.empty()) {
      piece_.resize(padded(piece_.size()));
      TRY(flush());
    }
    section_.digest = digest_of_digests(section_.pieces);
    return {};
  }

 private:
  Result<> flush() {
    TRY(base::write_all_at(to_, piece_, offset_, name_));
    section_.pieces.push_back(digest_of(piece_));
    offset_ += piece_.size();
    piece_.clear();
    return {};
  }

  Section& section_;
  int to_;
  u64 offset_;
  std::string_view name_;
  std::vector<u8> piece_;
};

class Encryptor : public Stage {
 public:
  Encryptor(Stage& next, const ContentKey& key, std::string additional)
      : next_(next), additional_(std::move(additional)) {
    crypto_secretstream_xchacha20poly1305_init_push(&state_, header_, key.bytes().data());
    plain_.reserve(kMessageSize);
  }
  Result<> push(ConstByteSpan bytes) override {
    while (!bytes.empty()) {
      if (plain_.size() == kMessageSize)
        TRY(seal(crypto_secretstream_xchacha20poly1305_TAG_MESSAGE));
      const std::size_t size = std::min(bytes.size(), kMessageSize - plain_.size());
      plain_.insert(plain_.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size));
      bytes = bytes.subspan(size);
    }
    return {};
  }
  Result<> finish() override {
    TRY(seal(crypto_secretstream_xchacha20poly1305_TAG_FINAL));
    return next_.finish();
  }

 private:
  Result<> seal(u8 tag) {
    if (!std::exchange(begun_, true)) TRY(next_.push(header_));
    std::vector<u8> message(plain_.size() + crypto_secretstream_xchacha20poly1305_ABYTES);
    crypto_secretstream_xchacha20poly1305_push(
        &state_, message.data(), nullptr, plain_.data(), plain_.size(),
        reinterpret_cast<const u8*>(additional_.data()), additional_.size(), tag);
    plain_.clear();
    return next_.push(message);
  }

  Stage& next_;
  std::string additional_;
  crypto_secretstream_xchacha20poly1305_state state_;
  u8 header_[crypto_secretstream_xchacha20poly1305_HEADERBYTES];
  std::vector<u8> plain_;
  bool begun_ = false;
};

// Levels up to 19 have windows of at most 8 MiB, which is what readers allow.
class Compressor : public Stage {
 public:
  Compressor(Stage& next, int level, u64 size)
      : next_(next), stream_(ZSTD_createCStream(), ZSTD_freeCStream), out_(128 * kKiB) {
    ZSTD_CCtx_setParameter(stream_.get(), ZSTD_c_compressionLevel, level);
    ZSTD_CCtx_setPledgedSrcSize(stream_.get(), size);
  }
  Result<> push(ConstByteSpan bytes) override { return run(bytes, ZSTD_e_continue); }
  Result<> finish() override {
    TRY(run({}, ZSTD_e_end));
    return next_.finish();
  }

 private:
  Result<> run(ConstByteSpan bytes, ZSTD_EndDirective mode) {
    ZSTD_inBuffer in{bytes.data(), bytes.size(), 0};
    std::size_t left = 0;
    do {
      ZSTD_outBuffer out{out_.data(), out_.size(), 0};
      left = ZSTD_compressStream2(stream_.get(), &out, &in, mode);
      if (ZSTD_isError(left) != 0) return fail("compressing it: {}", ZSTD_getErrorName(left));
      TRY(next_.push({out_.data(), out.pos}));
    } while (in.pos < in.size || (mode == ZSTD_e_end && left != 0));
    return {};
  }

  Stage& next_;
  std::unique_ptr<ZSTD_CStream, std::size_t (*)(ZSTD_CStream*)> stream_;
  std::vector<u8> out_;
};

bool is_zero(ConstByteSpan bytes) {
  return bytes.empty() ||
         (bytes[0] == 0 && std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

Result<std::vector<SectionExtent>> find_extents(SectionSource& source) {
  std::vector<SectionExtent> extents;
  std::vector<u8> block(kBlock);
  const u64 size = source.size();
  for (u64 at = 0; at < size; at += kBlock) {
    const u64 data = source.next_data(at);
    if (data >= size) break;
    at = std::max(at, base::align_down(data, kHoleSize));
    const ByteSpan bytes = ByteSpan(block).first(std::min(kBlock, size - at));
    TRY(source.read(at, bytes));
    for (u64 within = 0; within < bytes.size(); within += kHoleSize) {
      const u64 length = std::min(kHoleSize, bytes.size() - within);
      if (is_zero(bytes.subspan(within, length))) continue;
      if (!extents.empty() && extents.back().offset + extents.back().length == at + within)
        extents.back().length += length;
      else
        extents.push_back({at + within, length});
    }
  }
  return extents;
}

}  // namespace

Result<> SectionBytes::read(u64 offset, ByteSpan into) {
  std::ranges::copy(bytes_.subspan(offset, into.size()), into.begin());
  return {};
}

Result<> SectionFile::read(u64 offset, ByteSpan into) {
  return base::read_exact_at(fd_, into, offset_ + offset, name_);
}

u64 SectionFile::next_data(u64 offset) {
  if (offset >= size_) return size_;
  const off_t found = lseek(fd_, static_cast<off_t>(offset_ + offset), SEEK_DATA);
  if (found < 0)
    return errno == ENXIO ? size_ : offset;  // ENXIO: nothing but a hole; else: not supported
  return std::min(static_cast<u64>(found) - offset_, size_);
}

Result<> encode_section(Section& section, SectionSource& source, int zstd_level,
                        const ContentKey* key, int to, u64 file_offset,
                        std::string_view file_name) {
  section.size = source.size();
  if (section.size > kMaxContentSize) return fail("{} bytes are too many", section.size);
  std::vector<SectionExtent> extents{{0, section.size}};
  if (section.sparse) {
    TRY_ASSIGN(section.extents, find_extents(source));
    extents = section.extents;
  }
  for (const SectionExtent& extent : extents) section.data_size += extent.length;

  Storer storer(section, to, file_offset, file_name);
  Stage* first = &storer;
  std::optional<Encryptor> encryptor;
  if (section.encrypted) first = &encryptor.emplace(*first, *key, additional_data(section));
  std::optional<Compressor> compressor;
  if (section.compressed) first = &compressor.emplace(*first, zstd_level, section.data_size);
  std::vector<u8> block(kBlock);
  for (const SectionExtent& extent : extents) {
    for (u64 done = 0; done < extent.length; done += kBlock) {
      const ByteSpan bytes = ByteSpan(block).first(std::min(kBlock, extent.length - done));
      TRY(source.read(extent.offset + done, bytes));
      TRY(first->push(bytes));
    }
  }
  return first->finish();
}

}  // namespace smol::image

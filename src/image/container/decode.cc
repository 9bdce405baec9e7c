// Sections back to their content: stored pieces, each checked before use, then decryption, then
// decompression, then the extents. Data is pushed through the stages; none holds more than a
// message or a window.
#include <sodium.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#define ZSTD_STATIC_LINKING_ONLY  // ZSTD_getFrameHeader
#include <zstd.h>
#include <zstd_errors.h>

#include <algorithm>
#include <functional>

#include "image/container/container.h"
#include "image/container/format.h"

namespace smol::image {

// Where decoded bytes go.
class ContentSink {
 public:
  virtual ~ContentSink() = default;
  virtual Result<> put(u64 offset, ConstByteSpan bytes) = 0;
};

namespace {

constexpr int kMaxWindowLog = 23;  // 8 MiB
constexpr std::size_t kMessageOverhead = crypto_secretstream_xchacha20poly1305_ABYTES;

class Stage {
 public:
  virtual ~Stage() = default;
  virtual Result<> push(ConstByteSpan bytes) = 0;
  virtual Result<> finish() = 0;  // no more data comes
};

// The last stage: data to where the extents say that it belongs.
class Placer : public Stage {
 public:
  Placer(const Section& section, ContentSink& sink) : section_(section), sink_(sink) {
    if (!section.sparse) whole_.push_back({0, section.size});
  }
  Result<> push(ConstByteSpan bytes) override {
    const std::vector<SectionExtent>& extents = section_.sparse ? section_.extents : whole_;
    while (!bytes.empty()) {
      if (extent_ == extents.size() || extents[extent_].length == 0)
        return fail("it holds more than the {} bytes of data that the index says",
                    section_.data_size);
      const SectionExtent& extent = extents[extent_];
      const std::size_t size = std::min<u64>(bytes.size(), extent.length - within_);
      TRY(sink_.put(extent.offset + within_, bytes.first(size)));
      bytes = bytes.subspan(size);
      done_ += size;
      within_ += size;
      if (within_ == extent.length) {
        ++extent_;
        within_ = 0;
      }
    }
    return {};
  }
  Result<> finish() override {
    if (done_ != section_.data_size)
      return fail("it holds {} of {} bytes of data", done_, section_.data_size);
    return {};
  }

 private:
  const Section& section_;
  ContentSink& sink_;
  std::vector<SectionExtent> whole_;
  std::size_t extent_ = 0;
  u64 within_ = 0;
  u64 done_ = 0;
};

class Decompressor : public Stage {
 public:
  explicit Decompressor(Stage& next)
      : next_(next), stream_(ZSTD_createDStream(), ZSTD_freeDStream), out_(128 * kKiB) {
    ZSTD_DCtx_setParameter(stream_.get(), ZSTD_d_windowLogMax, kMaxWindowLog);
  }
  Result<> push(ConstByteSpan bytes) override {
    ZSTD_inBuffer in{bytes.data(), bytes.size(), 0};
    bool more = true;
    while (in.pos < in.size || more) {
      if (ended_ && in.pos < in.size) return fail("bytes behind the end of the compressed data");
      if (ended_) break;
      ZSTD_outBuffer out{out_.data(), out_.size(), 0};
      const std::size_t status = ZSTD_decompressStream(stream_.get(), &out, &in);
      if (ZSTD_isError(status) != 0) return fail("decompressing it: {}", ZSTD_getErrorName(status));
      ended_ = status == 0;
      more = out.pos == out.size;
      TRY(next_.push({out_.data(), out.pos}));
    }
    return {};
  }
  Result<> finish() override {
    if (!ended_) return fail("the compressed data is cut short");
    return next_.finish();
  }

 private:
  Stage& next_;
  std::unique_ptr<ZSTD_DStream, std::size_t (*)(ZSTD_DStream*)> stream_;
  std::vector<u8> out_;
  bool ended_ = false;
};

class Decryptor : public Stage {
 public:
  Decryptor(Stage& next, const ContentKey& key, std::string additional)
      : next_(next), key_(key), additional_(std::move(additional)) {}
  Result<> push(ConstByteSpan bytes) override {
    while (!bytes.empty()) {
      const std::size_t wanted = begun_ ? kMessageSize + kMessageOverhead
                                        : crypto_secretstream_xchacha20poly1305_HEADERBYTES;
      if (buffer_.size() == wanted) {
        TRY(take(crypto_secretstream_xchacha20poly1305_TAG_MESSAGE));
        continue;
      }
      const std::size_t size = std::min(bytes.size(), wanted - buffer_.size());
      buffer_.insert(buffer_.end(), bytes.begin(),
                     bytes.begin() + static_cast<std::ptrdiff_t>(size));
      bytes = bytes.subspan(size);
    }
    return {};
  }
  Result<> finish() override {
    // The stream's header alone can be waiting when the section was cut.
    if (!begun_) return fail("the encrypted data is cut short");
    TRY(take(crypto_secretstream_xchacha20poly1305_TAG_FINAL));
    return next_.finish();
  }

 private:
  Result<> take(u8 expected_tag) {
    if (!begun_) {
      crypto_secretstream_xchacha20poly1305_init_pull(&state_, buffer_.data(), key_.bytes().data());
      begun_ = true;
      buffer_.clear();
      return {};
    }
    std::vector<u8> plain(kMessageSize);
    unsigned long long size = 0;
    u8 tag = 0;
    if (buffer_.size() < kMessageOverhead ||
        crypto_secretstream_xchacha20poly1305_pull(
            &state_, plain.data(), &size, &tag, buffer_.data(), buffer_.size(),
            reinterpret_cast<const u8*>(additional_.data()), additional_.size()) != 0)
      return fail("decrypting it: the data was changed");
    if (tag != expected_tag)
      return fail("the encrypted data is cut short or has something behind its end");
    buffer_.clear();
    return next_.push({plain.data(), static_cast<std::size_t>(size)});
  }

  Stage& next_;
  const ContentKey& key_;
  std::string additional_;
  crypto_secretstream_xchacha20poly1305_state state_{};
  std::vector<u8> buffer_;
  bool begun_ = false;
};

class StringSink : public ContentSink {
 public:
  explicit StringSink(std::string& out) : out_(out) {}
  Result<> put(u64 offset, ConstByteSpan bytes) override {
    if (!bytes.empty()) std::memcpy(out_.data() + offset, bytes.data(), bytes.size());
    return {};
  }

 private:
  std::string& out_;
};

class FileSink : public ContentSink {
 public:
  FileSink(int fd, std::string_view name) : fd_(fd), name_(name) {}
  Result<> put(u64 offset, ConstByteSpan bytes) override {
    return base::write_all_at(fd_, bytes, offset, name_);
  }

 private:
  int fd_;
  std::string_view name_;
};

// All of it will be written: a fault each page is what a start would spend a tenth of its time on.
void expect_all(ByteSpan bytes) {
  const u64 start = base::align_up(reinterpret_cast<u64>(bytes.data()), kPageSize);
  const u64 end = base::align_down(reinterpret_cast<u64>(bytes.data() + bytes.size()), kPageSize);
  if (start < end)  // Linux 5.14; elsewhere each page comes when it is written
    (void)::madvise(reinterpret_cast<void*>(start), end - start, MADV_POPULATE_WRITE);
}

}  // namespace

Result<> Container::decode(const Section& section, ContentSink& sink) const {
  if (section.encrypted && !key_)
    return fail("{}: section '{}' is encrypted: it needs its {}", name_, section.name,
                needs_passphrase() ? "passphrase" : "key file");
  Placer placer(section, sink);
  Stage* first = &placer;
  std::optional<Decompressor> decompressor;
  if (section.compressed) first = &decompressor.emplace(*first);
  std::optional<Decryptor> decryptor;
  if (section.encrypted) first = &decryptor.emplace(*first, *key_, additional_data(section));
  std::vector<u8> buffer(std::min(kPieceSize, padded(section.stored_size)));
  const auto named = [&](Result<> result) -> Result<> {
    if (!result) return wrap(result.error(), "{}: section '{}'", name_, section.name);
    return {};
  };
  for (u64 piece = 0; piece < section.pieces.size(); ++piece) {
    TRY_ASSIGN(const ConstByteSpan bytes, read_piece(section, piece, buffer));
    const u64 left = section.stored_size - piece * kPieceSize;
    TRY(named(first->push(bytes.first(std::min<u64>(bytes.size(), left)))));
  }
  return named(first->finish());
}

// In one go into its place: no window, no second copy. The bounds are those of the stream: one
// frame, its window, and exactly the data that the index says.
Result<> Container::decompress_whole(const Section& section, ByteSpan content) const {
  const u64 padded_size = padded(section.stored_size);
  const auto stored = std::make_unique_for_overwrite<u8[]>(padded_size);
  const ByteSpan room(stored.get(), padded_size);
  expect_all(room);
  expect_all(content);
  for (u64 piece = 0; piece < section.pieces.size(); ++piece)
    TRY(read_piece(section, piece, room.subspan(piece * kPieceSize)));
  const ConstByteSpan bytes = room.first(section.stored_size);
  const auto refuse = [&](std::string_view why) -> Result<> {
    return fail("{}: section '{}': {}", name_, section.name, why);
  };
  ZSTD_frameHeader header;
  const std::size_t asked = ZSTD_getFrameHeader(&header, bytes.data(), bytes.size());
  if (ZSTD_isError(asked) != 0)
    return refuse(fmt::format("decompressing it: {}", ZSTD_getErrorName(asked)));
  if (asked != 0) return refuse("the compressed data is cut short");
  if (header.windowSize > u64{1} << kMaxWindowLog)
    return refuse("decompressing it: its window is too large");
  const std::size_t frame = ZSTD_findFrameCompressedSize(bytes.data(), bytes.size());
  if (ZSTD_isError(frame) != 0) return refuse("the compressed data is cut short");
  if (frame != bytes.size()) return refuse("bytes behind the end of the compressed data");
  const std::size_t size =
      ZSTD_decompress(content.data(), content.size(), bytes.data(), bytes.size());
  if (ZSTD_getErrorCode(size) == ZSTD_error_dstSize_tooSmall)
    return refuse(fmt::format("it holds more than the {} bytes of data that the index says",
                              section.data_size));
  if (ZSTD_isError(size) != 0)
    return refuse(fmt::format("decompressing it: {}", ZSTD_getErrorName(size)));
  if (size != content.size())
    return refuse(fmt::format("it holds {} of {} bytes of data", size, section.data_size));
  return {};
}

Result<std::string> Container::read_section(const Section& section, u64 limit) const {
  if (section.size > limit)
    return fail("{}: section '{}' has {} bytes, more than {}", name_, section.name, section.size,
                limit);
  // Else it may have much less data than it takes to hold it.
  const bool whole = section.compressed && !section.encrypted && !section.sparse &&
                     section.stored_size <= section.size;
  std::string content;
  if (whole) {
    Result<> result;
    content.resize_and_overwrite(section.size, [&](char* bytes, std::size_t size) {
      result = decompress_whole(section, {reinterpret_cast<u8*>(bytes), size});
      return result ? size : 0;
    });
    TRY(result);
    return content;
  }
  content.resize(section.size);
  StringSink sink(content);
  TRY(decode(section, sink));
  return content;
}

Result<> Container::copy_section(const Section& section, int to, std::string_view to_name) const {
  if (ftruncate(to, 0) != 0 || ftruncate(to, static_cast<off_t>(section.size)) != 0)
    return fail_errno("{}: making a file of {} bytes", to_name, section.size);
  FileSink sink(to, to_name);
  return decode(section, sink);
}

}  // namespace smol::image

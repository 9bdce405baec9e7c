// Sections back to their content: stored pieces, each checked before use, then decryption, then
// decompression, then the extents. Data is pushed through the stages; none holds more than a
// message or a window.
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

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

Result<std::string> Container::read_section(const Section& section, u64 limit) const {
  if (section.size > limit)
    return fail("{}: section '{}' has {} bytes, more than {}", name_, section.name, section.size,
                limit);
  std::string content(section.size, '\0');
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

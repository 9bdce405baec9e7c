// Streams of files, ranges and memory, and the decompressors over them. A compressed stream is read
// in steps of 64 KiB; zstd's window is limited by the library (128 MiB).
#include "image/tree/byte_source.h"

#include <lzma.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <vector>

namespace smol::image {
namespace {

constexpr u64 kStep = 64 * kKiB;

class FdBytes final : public ByteSource {
 public:
  FdBytes(int fd, std::string name) : fd_(fd), name_(std::move(name)) {}
  Result<u64> read(ByteSpan into) override {
    for (;;) {
      const ssize_t got = ::read(fd_, into.data(), into.size());
      if (got >= 0) return static_cast<u64>(got);
      if (errno != EINTR) return fail_errno("cannot read {}", name_);
    }
  }

 private:
  const int fd_;
  const std::string name_;
};

class RangeBytes final : public ByteSource {
 public:
  RangeBytes(int fd, u64 offset, u64 size, std::string name)
      : fd_(fd), offset_(offset), left_(size), name_(std::move(name)) {}
  Result<u64> read(ByteSpan into) override {
    const u64 part = std::min<u64>(left_, into.size());
    TRY(base::read_exact_at(fd_, into.first(part), offset_, name_));
    offset_ += part;
    left_ -= part;
    return part;
  }

 private:
  const int fd_;
  u64 offset_, left_;
  const std::string name_;
};

class MemoryBytes final : public ByteSource {
 public:
  explicit MemoryBytes(ConstByteSpan bytes) : bytes_(bytes) {}
  Result<u64> read(ByteSpan into) override {
    const u64 part = std::min(bytes_.size(), into.size());
    if (part > 0) std::memcpy(into.data(), bytes_.data(), part);
    bytes_ = bytes_.subspan(part);
    return part;
  }

 private:
  ConstByteSpan bytes_;
};

// The compressed bytes in steps, some of which have been read already.
class Input {
 public:
  Input(std::unique_ptr<ByteSource> source, std::vector<u8> first)
      : source_(std::move(source)), buffer_(std::move(first)), size_(buffer_.size()) {
    buffer_.resize(std::max<u64>(kStep, size_));
  }
  // What is there and not consumed; more is read when nothing is. Empty: the end.
  Result<ConstByteSpan> peek() {
    if (at_ == size_) {
      TRY_ASSIGN(size_, source_->read(buffer_));
      at_ = 0;
    }
    return ConstByteSpan(buffer_.data() + at_, size_ - at_);
  }
  void consume(u64 bytes) { at_ += bytes; }

 private:
  std::unique_ptr<ByteSource> source_;
  std::vector<u8> buffer_;
  u64 at_ = 0, size_;
};

class PlainBytes final : public ByteSource {
 public:
  explicit PlainBytes(Input input) : input_(std::move(input)) {}
  Result<u64> read(ByteSpan into) override {
    TRY_ASSIGN(const ConstByteSpan there, input_.peek());
    const u64 part = std::min(there.size(), into.size());
    if (part > 0) std::memcpy(into.data(), there.data(), part);
    input_.consume(part);
    return part;
  }

 private:
  Input input_;
};

// RFC 1952: members one after the other; zeros behind the last are padding of a tape.
class GzipBytes final : public ByteSource {
 public:
  GzipBytes(Input input, std::string name) : input_(std::move(input)), name_(std::move(name)) {
    ready_ = ::inflateInit2(&stream_, 15 + 16) == Z_OK;
  }
  ~GzipBytes() override { ::inflateEnd(&stream_); }

  Result<u64> read(ByteSpan into) override {
    if (!ready_) return fail("{}: no memory to decompress it", name_);
    const u64 room = std::min<u64>(into.size(), kStep * 16);
    stream_.next_out = into.data();
    stream_.avail_out = static_cast<uInt>(room);
    while (stream_.avail_out == room) {
      TRY_ASSIGN(const ConstByteSpan there, input_.peek());
      if (there.empty() && between_) return 0;
      if (there.empty()) return fail("{}: the gzip stream ends in the middle", name_);
      if (between_ && (padding_ || there[0] == 0)) {
        padding_ = true;
        if (std::any_of(there.begin(), there.end(), [](u8 byte) { return byte != 0; }))
          return fail("{}: there are other bytes behind the gzip stream", name_);
        input_.consume(there.size());
        continue;
      }
      if (between_) ::inflateReset(&stream_);
      between_ = false;
      stream_.next_in = const_cast<u8*>(there.data());
      stream_.avail_in = static_cast<uInt>(there.size());
      const int status = ::inflate(&stream_, Z_NO_FLUSH);
      input_.consume(there.size() - stream_.avail_in);
      if (status == Z_STREAM_END) {
        between_ = true;
      } else if (status != Z_OK && status != Z_BUF_ERROR) {
        return fail("{}: the gzip stream is damaged: {}", name_,
                    stream_.msg != nullptr ? stream_.msg : "bad header");
      }
    }
    return room - stream_.avail_out;
  }

 private:
  Input input_;
  const std::string name_;
  z_stream stream_{};
  bool ready_ = false, padding_ = false;
  bool between_ = false;  // behind a member
};

// RFC 8878: frames one after the other.
class ZstdBytes final : public ByteSource {
 public:
  ZstdBytes(Input input, std::string name)
      : input_(std::move(input)), name_(std::move(name)), stream_(::ZSTD_createDStream()) {}
  ~ZstdBytes() override { ::ZSTD_freeDStream(stream_); }

  Result<u64> read(ByteSpan into) override {
    if (stream_ == nullptr) return fail("{}: no memory to decompress it", name_);
    ZSTD_outBuffer out{into.data(), into.size(), 0};
    while (out.pos == 0 && out.size > 0) {
      TRY_ASSIGN(const ConstByteSpan there, input_.peek());
      if (there.empty() && between_) return 0;
      ZSTD_inBuffer in{there.data(), there.size(), 0};
      const std::size_t status = ::ZSTD_decompressStream(stream_, &out, &in);
      if (::ZSTD_isError(status))
        return fail("{}: the zstd stream is damaged: {}", name_, ::ZSTD_getErrorName(status));
      input_.consume(in.pos);
      between_ = status == 0;
      if (there.empty() && out.pos == 0 && !between_)
        return fail("{}: the zstd stream ends in the middle", name_);
    }
    return out.pos;
  }

 private:
  Input input_;
  const std::string name_;
  ZSTD_DStream* const stream_;
  bool between_ = false;  // behind a frame
};

// The .xz format (xz-file-format 1.1.0): streams one after the other, zeros between them.
class XzBytes final : public ByteSource {
 public:
  XzBytes(Input input, std::string name) : input_(std::move(input)), name_(std::move(name)) {
    ready_ = ::lzma_stream_decoder(&stream_, kXzMemory, LZMA_CONCATENATED) == LZMA_OK;
  }
  ~XzBytes() override { ::lzma_end(&stream_); }

  Result<u64> read(ByteSpan into) override {
    if (!ready_) return fail("{}: no memory to decompress it", name_);
    stream_.next_out = into.data();
    stream_.avail_out = into.size();
    while (stream_.avail_out == into.size() && !into.empty() && !ended_) {
      TRY_ASSIGN(const ConstByteSpan there, input_.peek());
      stream_.next_in = there.data();
      stream_.avail_in = there.size();
      const lzma_ret status = ::lzma_code(&stream_, there.empty() ? LZMA_FINISH : LZMA_RUN);
      input_.consume(there.size() - stream_.avail_in);
      ended_ = status == LZMA_STREAM_END;
      if (status == LZMA_MEMLIMIT_ERROR)
        return fail("{}: the xz stream needs more than {} MiB to be decompressed", name_,
                    kXzMemory / kMiB);
      if (status == LZMA_BUF_ERROR) return fail("{}: the xz stream ends in the middle", name_);
      if (status != LZMA_OK && !ended_)
        return fail("{}: the xz stream is damaged (liblzma status {})", name_,
                    static_cast<int>(status));
    }
    return into.size() - stream_.avail_out;
  }

 private:
  static constexpr u64 kXzMemory = 128 * kMiB;  // -9 needs 65
  Input input_;
  const std::string name_;
  lzma_stream stream_ = LZMA_STREAM_INIT;
  bool ready_ = false, ended_ = false;
};

}  // namespace

std::unique_ptr<ByteSource> fd_bytes(int fd, std::string name) {
  return std::make_unique<FdBytes>(fd, std::move(name));
}

std::unique_ptr<ByteSource> range_bytes(int fd, u64 offset, u64 size, std::string name) {
  return std::make_unique<RangeBytes>(fd, offset, size, std::move(name));
}

std::unique_ptr<ByteSource> memory_bytes(ConstByteSpan bytes) {
  return std::make_unique<MemoryBytes>(bytes);
}

Result<std::unique_ptr<ByteSource>> decompressed(std::unique_ptr<ByteSource> source,
                                                 std::string name) {
  std::vector<u8> first(4);
  u64 got = 0;
  while (got < first.size()) {
    TRY_ASSIGN(const u64 part, source->read(ByteSpan(first).subspan(got)));
    if (part == 0) break;
    got += part;
  }
  first.resize(got);
  const auto is = [&](std::initializer_list<u8> magic) {
    return first.size() >= magic.size() && std::equal(magic.begin(), magic.end(), first.begin());
  };
  const bool gzip = is({0x1f, 0x8b}), zstd = is({0x28, 0xb5, 0x2f, 0xfd});
  const bool xz = is({0xfd, '7', 'z', 'X'});
  if (is({'B', 'Z', 'h'}))
    return fail("{}: compressed by bzip2; what can be read is plain, gzip, zstd or xz", name);
  Input input(std::move(source), std::move(first));
  if (gzip) return std::make_unique<GzipBytes>(std::move(input), std::move(name));
  if (zstd) return std::make_unique<ZstdBytes>(std::move(input), std::move(name));
  if (xz) return std::make_unique<XzBytes>(std::move(input), std::move(name));
  return std::make_unique<PlainBytes>(std::move(input));
}

}  // namespace smol::image

// One function a format, all of one shape: the whole input, a buffer of the declared size, and how
// many bytes came out. Output beyond the declared size is a failure in each of them, so a hostile
// stream cannot make us grow.
#include "arch/x86_64/decompress.h"

#include <bzlib.h>
#include <lz4.h>
#include <lzma.h>
#include <sys/mman.h>
#include <zlib.h>
#include <zstd.h>

#include <limits>

#include "base/check.h"

namespace smol::arch::x86_64 {
namespace {

constexpr u64 kLzmaMemoryLimit = 512 * kMiB;
constexpr u32 kLz4LegacyMagic = 0x184c2102;
constexpr u64 kMaxInput = std::numeric_limits<i32>::max();  // the libraries count in 32 bits

using Written = Result<u64>;

Written inflate_gzip(ConstByteSpan in, ByteSpan out) {
  z_stream stream{};
  if (inflateInit2(&stream, 16 + MAX_WBITS) != Z_OK) return fail("zlib cannot start");
  stream.next_in = const_cast<u8*>(in.data());
  stream.avail_in = static_cast<uInt>(in.size());
  stream.next_out = out.data();
  stream.avail_out = static_cast<uInt>(out.size());
  const int status = inflate(&stream, Z_FINISH);
  const std::string message =
      stream.msg != nullptr ? stream.msg : "the stream is cut short or too long";
  const u64 written = stream.total_out;
  inflateEnd(&stream);
  if (status != Z_STREAM_END) return fail("{}", message);
  return written;
}

Written inflate_bzip2(ConstByteSpan in, ByteSpan out) {
  bz_stream stream{};
  if (BZ2_bzDecompressInit(&stream, 0, 0) != BZ_OK) return fail("libbz2 cannot start");
  stream.next_in = reinterpret_cast<char*>(const_cast<u8*>(in.data()));
  stream.avail_in = static_cast<unsigned>(in.size());
  stream.next_out = reinterpret_cast<char*>(out.data());
  stream.avail_out = static_cast<unsigned>(out.size());
  const int status = BZ2_bzDecompress(&stream);
  const u64 written = out.size() - stream.avail_out;
  BZ2_bzDecompressEnd(&stream);
  if (status != BZ_STREAM_END)
    return fail("the stream is corrupt, cut short or too long (bzip2 status {})", status);
  return written;
}

Written inflate_lzma(ConstByteSpan in, ByteSpan out, bool xz) {
  lzma_stream stream = LZMA_STREAM_INIT;
  const lzma_ret started = xz ? lzma_stream_decoder(&stream, kLzmaMemoryLimit, 0)
                              : lzma_alone_decoder(&stream, kLzmaMemoryLimit);
  if (started != LZMA_OK) return fail("liblzma cannot start ({})", static_cast<int>(started));
  stream.next_in = in.data();
  stream.avail_in = in.size();
  stream.next_out = out.data();
  stream.avail_out = out.size();
  const lzma_ret status = lzma_code(&stream, LZMA_FINISH);
  const u64 written = stream.total_out;
  lzma_end(&stream);
  if (status != LZMA_STREAM_END) {
    return fail("the stream is corrupt, cut short or too long (liblzma status {})",
                static_cast<int>(status));
  }
  return written;
}

// Legacy frame: the magic, then blocks of a 32-bit compressed size and that many bytes; no end
// mark. A kernel's payload ends in the 32-bit uncompressed size, which is not a block: nothing
// follows it.
Written inflate_lz4(ConstByteSpan in, ByteSpan out) {
  u64 at = 4;
  u64 written = 0;
  while (in.size() - at > 4) {
    const u32 block = base::load<u32>(&in[at]);
    at += 4;
    if (block == kLz4LegacyMagic) continue;
    if (block > in.size() - at) return fail("an lz4 block of {} bytes runs past the end", block);
    const int got = LZ4_decompress_safe(
        reinterpret_cast<const char*>(&in[at]), reinterpret_cast<char*>(out.data() + written),
        static_cast<int>(block), static_cast<int>(out.size() - written));
    if (got < 0) return fail("an lz4 block at offset {} is corrupt or too long", at);
    at += block;
    written += static_cast<u64>(got);
    if (written == out.size()) break;
  }
  return written;
}

Written inflate_zstd(ConstByteSpan in, ByteSpan out) {
  const std::size_t frame = ZSTD_findFrameCompressedSize(in.data(), in.size());
  if (ZSTD_isError(frame)) return fail("{}", ZSTD_getErrorName(frame));
  const std::size_t written = ZSTD_decompress(out.data(), out.size(), in.data(), frame);
  if (ZSTD_isError(written)) return fail("{}", ZSTD_getErrorName(written));
  return written;
}

Written run(Compression compression, ConstByteSpan in, ByteSpan out) {
  switch (compression) {
    case Compression::kGzip:
      return inflate_gzip(in, out);
    case Compression::kBzip2:
      return inflate_bzip2(in, out);
    case Compression::kLzma:
      return inflate_lzma(in, out, false);
    case Compression::kXz:
      return inflate_lzma(in, out, true);
    case Compression::kLz4:
      return inflate_lz4(in, out);
    case Compression::kZstd:
      return inflate_zstd(in, out);
    case Compression::kLzo:
      break;
  }
  return fail(
      "LZO is not supported; build the kernel with CONFIG_KERNEL_ZSTD or another compression");
}

bool starts_with(ConstByteSpan bytes, std::string_view magic) {
  return bytes.size() >= magic.size() && std::memcmp(bytes.data(), magic.data(), magic.size()) == 0;
}

}  // namespace

std::string_view name_of(Compression compression) {
  switch (compression) {
    case Compression::kGzip:
      return "gzip";
    case Compression::kBzip2:
      return "bzip2";
    case Compression::kLzma:
      return "lzma";
    case Compression::kXz:
      return "xz";
    case Compression::kLzo:
      return "LZO";
    case Compression::kLz4:
      return "lz4";
    case Compression::kZstd:
      return "zstd";
  }
  return "?";
}

std::optional<Compression> detect_compression(ConstByteSpan bytes) {
  using namespace std::string_view_literals;
  if (starts_with(bytes, "\x1f\x8b"sv)) return Compression::kGzip;
  if (starts_with(bytes, "BZh"sv)) return Compression::kBzip2;
  if (starts_with(bytes,
                  "\xfd"
                  "7zXZ\0"sv)) {
    return Compression::kXz;
  }
  if (starts_with(bytes, "\x5d\0\0"sv)) return Compression::kLzma;
  if (starts_with(bytes, "\x89LZO\0\r\n\x1a\n"sv)) return Compression::kLzo;
  if (starts_with(bytes, "\x02\x21\x4c\x18"sv)) return Compression::kLz4;
  if (starts_with(bytes, "\x28\xb5\x2f\xfd"sv)) return Compression::kZstd;
  return std::nullopt;
}

bool can_decompress(Compression compression) { return compression != Compression::kLzo; }

Result<base::Mapping> decompress(Compression compression, ConstByteSpan bytes, u64 size,
                                 std::string_view what) {
  if (bytes.size() > kMaxInput || size > kMaxInput || size == 0) {
    return fail("{}: {} bytes that unpack to {} are out of range", what, bytes.size(), size);
  }
  TRY_ASSIGN(base::Mapping mapping,
             base::Mapping::map(size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0,
                                "room for the decompressed kernel"));
  // Large pages save thousands of faults; where the host has none the call does nothing.
  (void)madvise(mapping.data(), mapping.size(), MADV_HUGEPAGE);
  const Written written = run(compression, bytes, mapping.bytes());
  if (!written)
    return wrap(written.error(), "{}: cannot be decompressed ({})", what, name_of(compression));
  if (*written != size) {
    return fail("{}: unpacks to {} bytes instead of the {} that its end declares: it is corrupt",
                what, *written, size);
  }
  return mapping;
}

}  // namespace smol::arch::x86_64

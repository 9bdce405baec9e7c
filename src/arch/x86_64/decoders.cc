// One function a format, all of one shape: the whole input, a buffer of the declared size, and how
// many bytes came out. Output beyond the declared size is a failure in each of them, so a hostile
// stream cannot make us grow.
#include "arch/x86_64/decoders.h"

#include <bzlib.h>
#include <lz4.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

namespace smol::arch::x86_64 {
namespace {

constexpr u64 kLzmaMemoryLimit = 512 * kMiB;
constexpr u32 kLz4LegacyMagic = 0x184c2102;

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

Written inflate_any_lzma(ConstByteSpan in, ByteSpan out, bool xz) {
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

Written inflate_lzma(ConstByteSpan in, ByteSpan out) { return inflate_any_lzma(in, out, false); }
Written inflate_xz(ConstByteSpan in, ByteSpan out) { return inflate_any_lzma(in, out, true); }

}  // namespace

Decoder decoder_for(Compression compression) {
  switch (compression) {
    case Compression::kGzip:
      return inflate_gzip;
    case Compression::kBzip2:
      return inflate_bzip2;
    case Compression::kLzma:
      return inflate_lzma;
    case Compression::kXz:
      return inflate_xz;
    case Compression::kLz4:
      return inflate_lz4;
    case Compression::kZstd:
      return inflate_zstd;
    case Compression::kLzo:
      break;
  }
  return nullptr;
}

}  // namespace smol::arch::x86_64

#include "storage/qcow2_compressed.h"

#include <zlib.h>
#include <zstd.h>

#include <memory>

namespace smol::storage {
namespace {

constexpr int kDeflateWindow = -12;  // raw deflate, a window of 4 KiB
constexpr int kZstdWindow = 23;      // log2 bytes: what a frame may make us allocate

bool inflate_all(ConstByteSpan packed, ByteSpan into) {
  z_stream stream{};
  if (::inflateInit2(&stream, kDeflateWindow) != Z_OK) return false;
  stream.next_in = const_cast<u8*>(packed.data());
  stream.avail_in = static_cast<uInt>(packed.size());
  stream.next_out = into.data();
  stream.avail_out = static_cast<uInt>(into.size());
  const int status = ::inflate(&stream, Z_FINISH);
  // The rubbish behind the data leaves a full buffer without the stream's end.
  const bool ok = (status == Z_STREAM_END || status == Z_BUF_ERROR) && stream.avail_out == 0;
  ::inflateEnd(&stream);
  return ok;
}

struct FreeZstd {
  void operator()(ZSTD_DCtx* context) const { ::ZSTD_freeDCtx(context); }
};

bool unzstd_all(ConstByteSpan packed, ByteSpan into) {
  const std::unique_ptr<ZSTD_DCtx, FreeZstd> context(::ZSTD_createDCtx());
  if (!context) return false;
  ::ZSTD_DCtx_setParameter(context.get(), ZSTD_d_windowLogMax, kZstdWindow);
  ZSTD_inBuffer in{packed.data(), packed.size(), 0};
  ZSTD_outBuffer out{into.data(), into.size(), 0};
  while (out.pos < out.size) {
    const std::size_t before_in = in.pos, before_out = out.pos;
    const std::size_t status = ::ZSTD_decompressStream(context.get(), &out, &in);
    if (::ZSTD_isError(status) || (in.pos == before_in && out.pos == before_out)) return false;
  }
  return true;
}

}  // namespace

Qcow2CompressedPlace compressed_place(u64 l2_entry, u32 cluster_bits) {
  const u32 bits = 62 - (cluster_bits - 8);  // of the offset; the number of sectors is above
  const u64 offset = l2_entry & ((u64{1} << bits) - 1);
  const u64 more_sectors = (l2_entry & ((u64{1} << 62) - 1)) >> bits;
  return {.offset = offset, .size = (more_sectors + 1) * 512 - offset % 512};
}

Result<> Qcow2Decompressor::read(u64 l2_entry, u64 within, std::span<const iovec> into) {
  std::lock_guard lock(mutex_);
  const Qcow2CompressedPlace place = compressed_place(l2_entry, header_.cluster_bits);
  if (entry_ != l2_entry) {
    entry_ = 0;
    std::vector<u8> packed(place.size);
    TRY(file_.read_bytes(packed, place.offset, AtEnd::kZero));
    cluster_.resize(header_.cluster_size());
    const bool ok = header_.compression == Qcow2Compression::kZstd ? unzstd_all(packed, cluster_)
                                                                   : inflate_all(packed, cluster_);
    if (!ok)
      return fail("{}: the compressed cluster at {:#x} cannot be unpacked", file_.path(),
                  place.offset);
    entry_ = l2_entry;
  }
  const u8* from = cluster_.data() + within;
  for (const iovec& part : into) {
    std::memcpy(part.iov_base, from, part.iov_len);
    from += part.iov_len;
  }
  return {};
}

}  // namespace smol::storage

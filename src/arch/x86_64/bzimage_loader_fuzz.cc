// The bzImage header, the payload's bounds and each decompressor.
#include <lz4.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include "arch/x86_64/fuzz_patch.h"
#include "arch/x86_64/test_images.h"

namespace smol::arch::x86_64::testing {
namespace {

std::vector<u8> small_vmlinux() {
  TestElf elf{.entry = 0x100000, .segments = {}, .notes = {}};
  elf.segments.push_back({0x100000, std::vector<u8>(0x800, 0x90)});
  return build_elf(elf);
}

std::vector<u8> zlib_payload(const std::vector<u8>& in) {
  std::vector<u8> out(in.size() + 500);
  z_stream stream{};
  deflateInit2(&stream, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
  stream.next_in = const_cast<u8*>(in.data());
  stream.avail_in = static_cast<uInt>(in.size());
  stream.next_out = out.data();
  stream.avail_out = static_cast<uInt>(out.size());
  deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

std::vector<u8> xz_payload(const std::vector<u8>& in) {
  std::vector<u8> out(in.size() + 4096);
  std::size_t size = 0;
  lzma_easy_buffer_encode(0, LZMA_CHECK_CRC32, nullptr, in.data(), in.size(), out.data(), &size,
                          out.size());
  out.resize(size);
  return with_size_appended(std::move(out), in.size());
}

std::vector<u8> zstd_payload(const std::vector<u8>& in) {
  std::vector<u8> out(ZSTD_compressBound(in.size()));
  out.resize(ZSTD_compress(out.data(), out.size(), in.data(), in.size(), 3));
  return with_size_appended(std::move(out), in.size());
}

std::vector<u8> lz4_payload(const std::vector<u8>& in) {
  std::vector<u8> block(static_cast<std::size_t>(LZ4_compressBound(static_cast<int>(in.size()))));
  block.resize(static_cast<std::size_t>(LZ4_compress_default(
      reinterpret_cast<const char*>(in.data()), reinterpret_cast<char*>(block.data()),
      static_cast<int>(in.size()), static_cast<int>(block.size()))));
  std::vector<u8> out(8);
  base::store<u32>(&out[0], 0x184c2102);
  base::store<u32>(&out[4], static_cast<u32>(block.size()));
  out.insert(out.end(), block.begin(), block.end());
  return with_size_appended(std::move(out), in.size());
}

std::vector<std::vector<u8>> images() {
  const auto elf = small_vmlinux();
  std::vector<std::vector<u8>> all;
  for (const auto& payload : {zlib_payload(elf), xz_payload(elf), zstd_payload(elf),
                              lz4_payload(elf), elf, std::vector<u8>(100, 7)}) {
    all.push_back(build_bzimage({.payload = payload,
                                 .setup_sectors = 1,
                                 .preferred_address = 0x100000,
                                 .init_size = 0x10000,
                                 .payload_offset = 0x40}));
  }
  return all;
}

}  // namespace
}  // namespace smol::arch::x86_64::testing

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace smol::arch::x86_64::testing;
  static const auto all = images();
  if (size == 0) return 0;
  const smol::ConstByteSpan input(data + 1, size - 1);
  try_load(fuzzed_image(all[data[0] % all.size()], input));
  return 0;
}

// Hostile archives and layers. A mutated stream would fail at its first checksum, so the input is
// also taken as an archive whose checksums are mended.
#include "image/tree/layer.h"
#include "image/tree/tar_builder.h"

using namespace smol;

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  const image::LayerOptions options{.limits = {.entries = 100,
                                               .bytes = 1 * kMiB,
                                               .extended_header_bytes = 4096,
                                               .sparse_segments = 100}};
  {
    image::Tree tree;
    (void)image::apply_layer(tree, image::memory_bytes({data, size}), options);
  }
  // The first bytes say where headers are, and what kinds.
  if (size < 16) return 0;
  std::string tar;
  for (std::size_t at = 0; at + 16 <= size && at < 2048; at += 64) {
    const std::string part(reinterpret_cast<const char*>(data) + at,
                           std::min<std::size_t>(64, size - at));
    static constexpr char kTypes[] = "0123456xgLKSDV7";
    std::string header(512, '\0');
    header.replace(0, part.size() - 8, part, 8);
    for (char& c : header)
      if (c != '\0' && static_cast<u8>(c) % 3 == 0) c = "./a"[static_cast<u8>(c) % 9 / 3];
    header.replace(100, 7, "0000644");
    header.replace(124, 11, fmt::format("{:011o}", static_cast<u8>(part[1])));
    header[156] = kTypes[static_cast<u8>(part[0]) % (sizeof(kTypes) - 1)];
    header.replace(157, 8, part.substr(4, 8));
    header.replace(257, 6, std::string("ustar\0", 6));
    if (header[156] == 'S') header.replace(386, part.size() - 4, part, 4);
    image::TarBuilder::seal(header);
    tar += header;
    if (static_cast<u8>(part[1]) > 0) {
      std::string records = image::TarBuilder::record("GNU.sparse.map", part.substr(2, 6)) +
                            image::TarBuilder::record("path", part.substr(3, 9)) +
                            image::TarBuilder::record(part.substr(8, 4), part.substr(12));
      records.resize(512);
      tar += records;
    }
  }
  image::Tree tree;
  (void)image::apply_layer(tree, image::bytes_of_text(tar), options);
  (void)image::apply_layer(tree, image::bytes_of_text(tar), options);
  (void)image::listing(tree);
  return 0;
}

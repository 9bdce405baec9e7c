// Images that lie: a small one of ours, damaged where the input says, and the input behind a
// superblock that is right.
#include <unistd.h>

#include "base/check.h"
#include "image/tree/erofs.h"
#include "image/tree/erofs_format.h"
#include "image/tree/tar_builder.h"

using namespace smol;

namespace {

std::vector<u8> small_image() {
  image::Tree tree;
  for (const char* const name : {"a", "b/c", "b/d", "e/f/g"})
    CHECK(tree.add_file(name, name, {.xattrs = {{"user.x", name}}}));
  CHECK(tree.add_symlink("l", "a"));
  image::Node sparse;
  sparse.size = 1 * kMiB;
  CHECK(tree.add_node("sparse", sparse));
  auto fd = base::create_memfd("image", 0);
  CHECK(fd);
  const auto info = image::write_erofs(tree, fd->get());
  CHECK(info);
  std::vector<u8> bytes(info->bytes);
  CHECK(base::read_exact_at(fd->get(), bytes, 0, "image"));
  bytes[1024 + 8] &= ~1;  // no checksum
  return bytes;
}

void read(const std::vector<u8>& bytes) {
  static const base::UniqueFd fd = *base::create_memfd("image", 0);
  CHECK(::ftruncate(fd.get(), static_cast<off_t>(bytes.size())) == 0);
  CHECK(base::write_all_at(fd.get(), bytes, 0, "image"));
  const auto tree = image::read_erofs(fd.get(), 0, bytes.size(), "image");
  if (tree) (void)image::listing(*tree);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  static const std::vector<u8> image = small_image();
  std::vector<u8> damaged = image;
  for (std::size_t at = 0; at + 3 <= size && at < 3u * (1 + data[0] % 8); at += 3)
    damaged[1024 + base::load<u16>(data + at) % 1600] = data[at + 2];
  read(damaged);
  std::vector<u8> made(image.begin(), image.begin() + 1024 + sizeof(image::erofs::SuperBlock));
  made.insert(made.end(), data, data + size);
  made.resize(8192);
  read(made);
  return 0;
}

#include "image/tree/erofs_format.h"

#include <sys/stat.h>

#include <array>

namespace smol::image::erofs {

SplitXattr split_xattr(std::string_view name) {
  for (const XattrPrefix& prefix : kXattrPrefixes) {
    if (prefix.whole ? name == prefix.text
                     : name.starts_with(prefix.text) && name.size() > prefix.text.size())
      return {prefix.index, name.substr(prefix.text.size())};
  }
  return {};
}

u16 type_bits(NodeKind kind) {
  static constexpr u16 kBits[] = {S_IFREG, S_IFDIR, S_IFLNK, S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK};
  return kBits[static_cast<u8>(kind)];
}

u8 directory_type(NodeKind kind) {
  static constexpr u8 kTypes[] = {1, 2, 7, 3, 4, 5, 6};
  return kTypes[static_cast<u8>(kind)];
}

u32 crc32c(u32 crc, ConstByteSpan bytes) {
  static constexpr auto kTable = [] {
    std::array<u32, 256> table{};
    for (u32 i = 0; i < 256; ++i) {
      u32 value = i;
      for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1) != 0 ? 0x82f63b78 : 0);
      table[i] = value;
    }
    return table;
  }();
  for (const u8 byte : bytes) crc = kTable[(crc ^ byte) & 0xff] ^ (crc >> 8);
  return crc;
}

}  // namespace smol::image::erofs

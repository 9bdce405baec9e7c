// The walk over cpio, zstd, xz and lz4 members; the first byte chooses a magic so that each walk is
// reached.
#include <string_view>
#include <vector>

#include "arch/x86_64/initrd_check.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace std::string_view_literals;
  static constexpr std::string_view kMagics[] = {""sv, "070701"sv, "\x28\xb5\x2f\xfd"sv,
                                                 "\xfd"
                                                 "7zXZ\0"sv,
                                                 "\x02\x21\x4c\x18"sv};
  if (size == 0) return 0;
  const std::string_view magic = kMagics[data[0] % 5];
  std::vector<smol::u8> bytes(magic.begin(), magic.end());
  bytes.insert(bytes.end(), data + 1, data + size);
  if (data[0] % 5 == 1) {  // hexadecimal fields are hard to hit by chance
    for (std::size_t i = 6; i < bytes.size() && i < 110; ++i)
      bytes[i] = "0123456789abcdef"[bytes[i] % 16];
    for (const std::size_t field : {54u, 94u}) {
      for (std::size_t i = field; i < field + 6 && i < bytes.size(); ++i) bytes[i] = '0';
    }
  }
  const auto result = smol::arch::x86_64::check_initrd(bytes, "initrd");
  if (!result && result.error().message().empty()) __builtin_trap();
  return 0;
}

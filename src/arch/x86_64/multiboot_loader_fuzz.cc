// The search for the Multiboot header, its address fields, and the ELF way. The checksum is
// repaired so that flags vary.
#include "arch/x86_64/fuzz_patch.h"
#include "arch/x86_64/test_images.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace smol;
  using namespace smol::arch::x86_64::testing;
  static const std::vector<u8> kernel =
      build_multiboot({.load_end = 0x100100, .bss_end = 0x101000, .size = 0x200});
  static const std::vector<u8> initrd(3000, 'm');
  const ConstByteSpan input(data, size);
  std::vector<u8> image = fuzzed_image(kernel, input);
  // Patches beyond the header's start may have hit magic, flags or checksum: make the sum right
  // again.
  if (image.size() >= 0x30 && (size & 1) == 0) {
    base::store<u32>(&image[0x10], 0x1badb002);
    base::store<u32>(&image[0x18], 0u - 0x1badb002u - base::load<u32>(&image[0x14]));
  }
  try_load(image, (size & 2) == 0 ? &initrd : nullptr);
  return 0;
}

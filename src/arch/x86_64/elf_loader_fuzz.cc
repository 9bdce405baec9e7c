// The ELF parser, the note scanner and the PVH loader.
#include "arch/x86_64/fuzz_patch.h"
#include "arch/x86_64/test_images.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace smol::arch::x86_64::testing;
  static const std::vector<smol::u8> wide = build_pvh_kernel(0x200, 0x3000);
  static const std::vector<smol::u8> narrow = [] {
    TestElf elf{.is_64 = false, .machine = 3, .segments = {}, .notes = pvh_note(0x100000)};
    elf.segments.push_back({0x100000, std::vector<smol::u8>(0x100, 1)});
    elf.segments.push_back({0x200000, std::vector<smol::u8>(0x80, 2), 0x1000});
    return build_elf(elf);
  }();
  static const std::vector<smol::u8> initrd(5000, 'i');
  const smol::ConstByteSpan input(data, size);
  try_load(fuzzed_image(wide, input), size % 2 == 0 ? &initrd : nullptr);
  try_load(fuzzed_image(narrow, input));
  return 0;
}

// What the loaders' fuzzers share: an input is a list of patches to a valid image, so that runs get
// past the magic numbers; an input that begins with 0xff is an image by itself.
#pragma once

#include <vector>

#include "arch/x86_64/boot.h"

namespace smol::arch::x86_64::testing {

// Patches are 4 bytes: a 16-bit offset (modulo the first 4 KiB or, with its top bit, from the
// image's end), a width by the low bits of the next byte, the value byte (repeated).
inline std::vector<u8> patched(std::vector<u8> image, ConstByteSpan patches) {
  for (; patches.size() >= 4 && !image.empty(); patches = patches.subspan(4)) {
    const u16 where = base::load<u16>(patches.data());
    const u64 offset = (where & 0x7fff) % image.size();
    const u64 at = (where & 0x8000) != 0 ? image.size() - 1 - offset : offset;
    const u64 width = u64{1} << (patches[2] & 3);
    if ((patches[2] & 0xf0) == 0xf0) {
      image.resize(at + 1);  // cut
      continue;
    }
    for (u64 i = 0; i < width && at + i < image.size(); ++i) image[at + i] = patches[3];
  }
  return image;
}

inline std::vector<u8> fuzzed_image(const std::vector<u8>& valid, ConstByteSpan input) {
  if (!input.empty() && input[0] == 0xff) return {input.begin() + 1, input.end()};
  return patched(valid, input);
}

// Loads the image into memory shared by all runs; a plan must have everything that it names in RAM.
inline void try_load(const std::vector<u8>& kernel, const std::vector<u8>* initrd = nullptr) {
  static const std::unique_ptr<GuestMemory> memory = *GuestMemory::create(4 * kMiB);
  const BytesImage image(kernel, "kernel");
  const BytesImage disk(initrd != nullptr ? ConstByteSpan(*initrd) : ConstByteSpan(), "initrd");
  const auto plan = load_kernel(*memory, {.kernel = &image,
                                          .initrd = initrd != nullptr ? &disk : nullptr,
                                          .command_line = "console=ttyS0",
                                          .rsdp = kAcpiTables,
                                          .modules = {}});
  if (!plan) {
    if (plan.error().message().empty()) __builtin_trap();
    return;
  }
  for (const LoadedRange& range : plan->loaded) {
    if (!memory->contains(range.start, range.size)) __builtin_trap();
  }
}

}  // namespace smol::arch::x86_64::testing

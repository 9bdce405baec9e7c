// virtio-mmio devices told to Linux on its command line, for kernels without ACPI
// (CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES). Source: Linux
// Documentation/admin-guide/kernel-parameters.txt, virtio_mmio.device.
#pragma once

#include <fmt/format.h>

#include <string>

#include "arch/x86_64/memory_map.h"

namespace smol::arch::x86_64 {

// "virtio_mmio.device=4K@0xd0000000:5"
inline std::string virtio_mmio_argument(GuestPhysical address, u32 irq) {
  static_assert(kVirtioMmioSize == 4 * kKiB);
  return fmt::format("virtio_mmio.device=4K@{:#x}:{}", address.value, irq);
}

// The arguments of devices 0 .. count-1 in their standard places, separated by blanks.
inline std::string virtio_mmio_arguments(u32 count) {
  std::string line;
  for (u32 i = 0; i < count; ++i) {
    if (i != 0) line += ' ';
    line += virtio_mmio_argument(virtio_mmio_address(i), virtio_mmio_irq(i));
  }
  return line;
}

}  // namespace smol::arch::x86_64

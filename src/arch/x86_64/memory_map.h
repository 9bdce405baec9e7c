// Where things lie in the machine's physical address space and on its interrupt lines: one page of
// constants, so that the tables that describe the machine (E820, MP table, ACPI), the loaders and
// the assembler agree.
//
//   0x0000_0500  boot GDT, start info, zero page, page tables, command line    (free for the kernel
//   after boot) 0x0009_fc00  EBDA: Intel MP table                                          reserved
//   0x000e_0000  ACPI tables, RSDP first                                       reserved
//   0x0010_0000  RAM up to 3 GiB, the kernel at its linked address, the initrd at the top
//   0xc000_0000  hole: 0xc000_0000 PCI ECAM, 0xd000_0000 virtio-mmio, 0xfec0_0000 I/O APIC,
//   0xfee0_0000 local APIC 0x1_0000_0000 RAM that did not fit below the hole
//
// E820 types: ACPI specification 6.5, table 15.4.
#pragma once

#include <vector>

#include "base/bytes.h"
#include "memory/guest_memory.h"

namespace smol::arch::x86_64 {

using memory::GuestMemory;
using memory::GuestPhysical;

// Low memory, used by the loaders until the kernel has read it.
inline constexpr GuestPhysical kBiosDataArea{
    0x400};  // words at 0x40e (EBDA segment) and 0x413 (base memory, KiB)
inline constexpr GuestPhysical kBootGdt{0x500};
inline constexpr GuestPhysical kPvhStartInfo{0x6000};  // start info, then memory map, module list
inline constexpr GuestPhysical kZeroPage{0x7000};      // struct boot_params
inline constexpr GuestPhysical kPageTables{0x9000};    // PML4, PDPT, four page directories
inline constexpr GuestPhysical kCommandLine{0x20000};
inline constexpr u64 kCommandLineRoom = 0x10000;  // bytes, the final 0 included
inline constexpr u64 kPageTablesSize = 6 * kPageSize;

// Firmware's share of the first MiB; reserved in E820.
inline constexpr GuestPhysical kEbda{0x9fc00};
inline constexpr u64 kEbdaSize = 1024;
inline constexpr GuestPhysical kAcpiTables{0xe0000};
inline constexpr u64 kAcpiTablesSize = 0x10000;
inline constexpr GuestPhysical kMpTableOverflow{
    0xf0000};  // MP configuration table when the EBDA is too small for it
inline constexpr GuestPhysical kHighRam{0x100000};

// The hole.
inline constexpr GuestPhysical kPciEcam{0xc0000000};  // 1 MiB a bus
inline constexpr u64 kPciEcamBuses = 1;
inline constexpr GuestPhysical kVirtioMmio{0xd0000000};
inline constexpr u64 kVirtioMmioSize = 0x1000;  // bytes a device
inline constexpr GuestPhysical kIoApic{0xfec00000};
inline constexpr GuestPhysical kLocalApic{0xfee00000};

// Interrupt lines. Line n is I/O APIC pin n, and for n < 16 also PIC input n; the PIT is on line 0.
inline constexpr u32 kIoApicPins = 24;
inline constexpr u32 kSerialIrq = 4;
inline constexpr u32 kRtcIrq = 8;
inline constexpr u32 kAcpiIrq = 9;  // SCI, or the generic event device
inline constexpr u32 kMaxVirtioMmioDevices = 19;

// Window and line of the virtio-mmio device with this number (0 .. kMaxVirtioMmioDevices-1). Lines
// below 16 come first: with ACPI on, Linux maps no others for devices that are announced on the
// command line.
constexpr GuestPhysical virtio_mmio_address(u32 index) {
  return kVirtioMmio + index * kVirtioMmioSize;
}
constexpr u32 virtio_mmio_irq(u32 index) {
  constexpr u32 kLines[kMaxVirtioMmioDevices] = {5, 6,  7,  10, 11, 12, 14, 15, 13, 3,
                                                 1, 16, 17, 18, 19, 20, 21, 22, 23};
  return kLines[index % kMaxVirtioMmioDevices];
}

enum class E820Type : u32 { kRam = 1, kReserved = 2 };

struct E820Entry {
  u64 start = 0;
  u64 size = 0;  // bytes
  E820Type type = E820Type::kRam;
};

// The map that a PC's firmware would tell of this memory: RAM regions less the firmware's share of
// the first MiB, in ascending order without overlap. pci: also reserves the ECAM window.
std::vector<E820Entry> build_e820(const GuestMemory& memory, bool pci = false);

}  // namespace smol::arch::x86_64

// Putting a kernel into guest memory and saying how to enter it. The kind of kernel is told by its
// content, never by its file name:
//   ELF with the Xen note PHYS32_ENTRY      PVH, 32-bit protected mode          (Linux vmlinux,
//   FreeBSD, unikernels) bzImage                                 Linux 64-bit boot protocol; the
//   payload is decompressed here, on the host Multiboot 1 header in the first 8 KiB   Multiboot 1,
//   32-bit protected mode  (kernels people write)
// Sources: xen/include/public/arch-x86/hvm/start_info.h (PVH); Linux
// Documentation/arch/x86/boot.rst; Multiboot Specification 0.6.96.
//
// Guest memory must be fresh (all zero) apart from what the machine's own tables hold above the
// EBDA.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "arch/x86_64/image_source.h"
#include "arch/x86_64/load_map.h"
#include "hypervisor/cpu_state.h"

namespace smol::arch::x86_64 {

enum class KernelKind { kPvh, kBzImage, kMultiboot };
std::string_view name_of(KernelKind kind);  // "PVH ELF", "bzImage", "Multiboot"

struct BootModule {
  const ImageSource* image = nullptr;
  std::string command_line;
};

struct BootInputs {
  const ImageSource* kernel = nullptr;  // required
  const ImageSource* initrd = nullptr;
  std::string command_line;
  std::optional<GuestPhysical> rsdp;  // of the ACPI tables, when there are any
  std::vector<BootModule> modules;    // Multiboot only, after the initrd, which is module 0
};

struct BootPlan {
  KernelKind kind = KernelKind::kPvh;
  hypervisor::CpuState state;  // of the bootstrap processor
  std::vector<LoadedRange> loaded;
};

// An image that is none of the above is an error that names it, what it is and what was expected.
Result<KernelKind> detect_kernel(const ImageSource& image);

Result<BootPlan> load_kernel(GuestMemory& memory, const BootInputs& inputs);

// The same over paths; an empty initrd path means none.
struct BootFiles {
  std::string kernel;
  std::string initrd;
  std::string command_line;
  std::optional<GuestPhysical> rsdp;
};
Result<BootPlan> load_kernel_files(GuestMemory& memory, const BootFiles& files);

}  // namespace smol::arch::x86_64

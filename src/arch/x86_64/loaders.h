// The three loaders behind load_kernel(), and what they share. Internal to this folder.
#pragma once

#include "arch/x86_64/boot.h"

namespace smol::arch::x86_64 {

Result<hypervisor::CpuState> load_pvh(LoadMap& map, const BootInputs& inputs);
Result<hypervisor::CpuState> load_bzimage(LoadMap& map, const BootInputs& inputs);
Result<hypervisor::CpuState> load_multiboot(LoadMap& map, const BootInputs& inputs);

// Content tests; false also for images that are too short to tell.
bool has_bzimage_header(const ImageSource& image);
bool has_multiboot_header(const ImageSource& image);

struct LoadedInitrd {
  GuestPhysical start;
  u64 size = 0;  // bytes; 0: there is none
};
// As high as `limit` (one past the last byte allowed), free RAM under 4 GiB and page alignment let
// it be.
Result<LoadedInitrd> load_initrd(LoadMap& map, const ImageSource* initrd, u64 limit);

// Writes the command line and its final 0 at kCommandLine; limit: the longest that this kernel
// takes, without the 0.
Result<> put_command_line(LoadMap& map, const std::string& line, u64 limit);

}  // namespace smol::arch::x86_64

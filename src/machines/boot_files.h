// What a machine boots from: kernel, initial root file system and root disk, as flags of the
// monitor and as the guest's root.
#pragma once

#include <string>
#include <vector>

#include "base/fd.h"
#include "machines/guest_setup.h"

namespace smol::machines {

// `micro` or `full`: beside the program (../share/smolvm), or in $SMOLVM_SHARE.
Result<std::string> find_kernel(const std::string& name);

struct BootRequest {
  std::string kernel;   // "", micro, full or a path
  std::string append;   // words for the kernel's command line
  u64 cpus = 1;         // more than one: full, unless another kernel was asked for
  std::string rootfs;   // "": the image alone; a directory: copied over it; a file: a disk
  std::string initrd;   // unpacked over all that
  ConstByteSpan image;  // the embedded initial root
  ConstByteSpan init_image = {};  // init alone, enough where rootfs is a disk; "": image is taken
};

struct BootFiles {
  std::vector<std::string>
      arguments;          // --kernel, --cmdline, --tables, --initramfs, --disk of the root
  base::UniqueFd initrd;  // must stay open until the monitor runs, under its number
  unsigned disks = 0;     // how many /dev/vdX the root took
  GuestRoot root;         // initramfs, or an overlay in memory over the disk
};

Result<BootFiles> prepare_boot(const BootRequest& request);
// "/dev/vda" for 0.
std::string disk_name(unsigned index);

}  // namespace smol::machines

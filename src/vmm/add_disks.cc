// Block devices: one virtio-blk each, in the order of the command line (vda, vdb, ...).
#include "devices/virtio/block/block.h"
#include "storage/raw.h"
#include "vmm/machine.h"

namespace smol::vmm {

Result<> Machine::add_disks() {
  for (const DiskConfig& disk : config_.disks) {
    TRY_ASSIGN(auto raw, storage::RawDisk::open(disk.path, disk.read_only ? storage::Access::kReadOnly
                                                                          : storage::Access::kReadWrite));
    TRY_ASSIGN(auto block, devices::virtio::Block::create(std::move(raw), disk.serial));
    TRY(add_virtio(std::move(block)));
  }
  return {};
}

}  // namespace smol::vmm

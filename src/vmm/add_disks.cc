// Block devices: one virtio-blk each, in the order of the command line (vda, vdb, ...).
#include "devices/virtio/block/block.h"
#include "storage/open_disk.h"
#include "vmm/machine.h"

namespace smol::vmm {

Result<> Machine::add_disks() {
  for (const DiskConfig& config : config_.disks) {
    const auto access = config.read_only || config.window ? storage::Access::kReadOnly
                                                          : storage::Access::kReadWrite;
    TRY_ASSIGN(auto disk, storage::open_disk({.path = config.path,
                                              .window = config.window,
                                              .access = access,
                                              .type = config.image_type,
                                              .direct = config.direct,
                                              .backing_files = config.backing_files}));
    TRY_ASSIGN(auto block,
               devices::virtio::Block::create(*loop_, std::move(disk),
                                              {.serial = config.serial,
                                               .num_queues = static_cast<u16>(config.num_queues),
                                               .queue_size = static_cast<u16>(config.queue_size),
                                               .rate_limit = config.rate_limit}));
    const std::string id = config.id.empty() ? fmt::format("_disk{}", disks_.size()) : config.id;
    disks_.emplace_back(id, block.get());
    TRY(add_virtio(std::move(block), id));
  }
  return {};
}

Result<> Machine::resize_disk(std::string_view id, u64 size) {
  for (const auto& [known, block] : disks_)
    if (known == id) return block->resize(size);
  return fail("the machine has no disk '{}'", id);
}

}  // namespace smol::vmm

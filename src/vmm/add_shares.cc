// Shared directories: one virtio-9p device for all of them.
#include <sys/resource.h>

#include "devices/virtio/p9/p9.h"
#include "vmm/machine.h"

namespace smol::vmm {
namespace {

constexpr std::string_view kMountTag = "smol";
constexpr u64 kWantedDescriptors = 65536;
constexpr u64 kOthersDescriptors = 512;  // for sockets, disks and whatever else the monitor opens

// Files that the guest uses are descriptors here: the soft limit, 1,024 by habit, goes up as far as
// it may. Half of them, or all but a few, are for the shares.
u32 descriptors_for_shares() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return 256;
  const rlim_t wanted = std::min<rlim_t>(limit.rlim_max, kWantedDescriptors);
  if (limit.rlim_cur < wanted) {
    const rlimit raised{.rlim_cur = wanted, .rlim_max = limit.rlim_max};
    if (::setrlimit(RLIMIT_NOFILE, &raised) == 0) limit.rlim_cur = wanted;
  }
  const u64 now = limit.rlim_cur;
  return static_cast<u32>(std::min(
      now > 2 * kOthersDescriptors ? now - kOthersDescriptors : now / 2, kWantedDescriptors));
}

share::ShareOptions options_of(const ShareConfig& share) {
  return {.tag = share.tag,
          .path = share.path,
          .read_only = share.read_only,
          .uid = share.uid,
          .gid = share.gid};
}

}  // namespace

Result<> Machine::add_shares() {
  if (config_.shares.empty() && !config_.share_device) return {};
  TRY_ASSIGN(auto server, share::Server::create(descriptors_for_shares()));
  for (const ShareConfig& share : config_.shares) TRY(server->add(options_of(share)));
  TRY_ASSIGN(auto device, devices::virtio::P9::create(std::move(server), kMountTag));
  shares_ = device.get();
  return add_virtio(std::move(device));
}

Result<> Machine::add_share(const ShareConfig& share) {
  if (shares_ == nullptr)
    return fail("cannot share {}: the machine was started without --share", share.path);
  return shares_->server().add(options_of(share));
}

Result<> Machine::remove_share(std::string_view tag) {
  if (shares_ == nullptr)
    return fail("cannot remove the share {}: the machine was started without --share", tag);
  return shares_->server().remove(tag);
}

}  // namespace smol::vmm

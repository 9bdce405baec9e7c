// The socket device.
#include "devices/virtio/vsock/vsock.h"
#include "vmm/machine.h"

namespace smol::vmm {

Result<> Machine::add_vsock() {
  if (!config_.vsock) return {};
  TRY_ASSIGN(auto vsock, devices::virtio::Vsock::create(*loop_, {.guest_cid = config_.vsock->cid,
                                                                 .socket = config_.vsock->socket}));
  vsock_ = vsock.get();
  return add_virtio(std::move(vsock));
}

}  // namespace smol::vmm

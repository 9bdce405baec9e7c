// The entropy device.
#include "devices/virtio/rng/rng.h"
#include "vmm/machine.h"

namespace smol::vmm {

Result<> Machine::add_rng() {
  if (!config_.rng) return {};
  TRY_ASSIGN(auto rng, devices::virtio::Rng::create(*loop_, config_.rng_source));
  return add_virtio(std::move(rng));
}

}  // namespace smol::vmm

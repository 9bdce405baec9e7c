// The socket device.
#include "vmm/machine.h"

namespace smol::vmm {

Result<> Machine::add_vsock() {
  if (!config_.vsock) return {};
  return fail("--vsock is not supported yet");
}

}  // namespace smol::vmm

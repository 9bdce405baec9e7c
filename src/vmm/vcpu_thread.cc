// The thread that runs the guest: one loop of run() and serving its exits.
#include <pthread.h>

#include "base/log.h"
#include "vmm/machine.h"

namespace smol::vmm {

using hypervisor::Exit;

void Machine::run_vcpu() {
  ::pthread_setname_np(::pthread_self(), "vcpu0");
  while (!stopping_.load(std::memory_order_acquire)) {
    auto exit = vcpu_->run();
    if (!exit) return end({.reason = EndReason::kFailed, .text = exit.error().chain()});
    ++stats_.exits[exit->index()];
    const auto go_on = serve(*exit);
    if (!go_on) return end({.reason = EndReason::kFailed, .text = go_on.error().chain()});
    if (!*go_on) return;
  }
}

// False: the machine has ended.
Result<bool> Machine::serve(const Exit& exit) {
  if (const auto* io = std::get_if<hypervisor::ExitPortIo>(&exit)) {
    serve_port(*io);
    return true;
  }
  if (const auto* io = std::get_if<hypervisor::ExitMmio>(&exit)) {
    serve_mmio(*io);
    return true;
  }
  if (std::holds_alternative<hypervisor::ExitShutdown>(exit)) {
    end({.reason = EndReason::kTripleFault, .text = {}});
    return false;
  }
  if (const auto* failed = std::get_if<hypervisor::ExitFailed>(&exit))
    return fail("the {} back end cannot go on: {}", stats_.accel, failed->reason);
  return true;  // interrupted: the loop looks at stopping_
}

void Machine::serve_port(const hypervisor::ExitPortIo& io) {
  ++stats_.port_exits[io.port];
  for (std::size_t at = 0; at + io.size <= io.data.size(); at += io.size) {
    const ByteSpan element = io.data.subspan(at, io.size);
    if (io.write) {
      ports_.write(io.port, element);
    } else {
      ports_.read(io.port, element);
    }
  }
}

void Machine::serve_mmio(const hypervisor::ExitMmio& io) {
  ++stats_.mmio_exits[fmt::format("{:#x}", io.address.value & ~u64{0xfff})];
  if (io.write) {
    mmio_.write(io.address.value, io.data);
  } else {
    mmio_.read(io.address.value, io.data);
  }
}

}  // namespace smol::vmm

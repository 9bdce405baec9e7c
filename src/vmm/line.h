// An interrupt line of the Vm, as devices see it.
#pragma once

#include "base/log.h"
#include "devices/bus/device.h"
#include "hypervisor/hypervisor.h"

namespace smol::vmm {

class Line final : public devices::InterruptLine {
 public:
  Line(hypervisor::Vm& vm, u32 gsi) : vm_(vm), gsi_(gsi) {}
  u32 gsi() const { return gsi_; }
  void set_level(bool high) override { set(high); }
  void pulse() override {
    set(true);
    set(false);
  }

 private:
  void set(bool high) {
    if (const auto done = vm_.set_irq_line(gsi_, high); !done && complaints_.allow())
      base::log_error("{}", done.error().chain());
  }
  hypervisor::Vm& vm_;
  const u32 gsi_;
  base::RateLimit complaints_;
};

}  // namespace smol::vmm

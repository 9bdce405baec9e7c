#include "devices/legacy/pci_ports.h"

#include <algorithm>

namespace smol::devices::legacy {
namespace {
constexpr u8 kResetCpu = 0x04;  // a rising edge resets
constexpr u8 kStored = 0x0a;    // SYS_RST and FULL_RST read back
}  // namespace

void PciPorts::read(u64 offset, ByteSpan data) {
  std::ranges::fill(data, u8{0xff});
  if (offset == kResetOffset && data.size() == 1) data[0] = reset_control_;
}

void PciPorts::write(u64 offset, ConstByteSpan data) {
  if (offset != kResetOffset || data.size() != 1) return;
  reset_control_ = data[0] & kStored;
  if ((data[0] & kResetCpu) != 0) events_.reset_requested();
}

}  // namespace smol::devices::legacy

// Register sequences against every fixed device: any offset and width inside the device's range,
// time that moves, input that arrives. What must hold: no crash, the interrupt line follows, the
// input queue stays bounded.
#include <memory>

#include "devices/legacy/acpi_pm.h"
#include "devices/legacy/debug_ports.h"
#include "devices/legacy/fakes.h"
#include "devices/legacy/i8042.h"
#include "devices/legacy/pci_ports.h"
#include "devices/legacy/rtc.h"
#include "devices/legacy/uart16550.h"

namespace smol::devices::legacy {
namespace {

struct Machine {
  testing::Events events;
  testing::Line uart_line, rtc_line, pm_line;
  u64 now = u64{1700000000} * 1000000000;
  u64 sent = 0;
  Uart16550 uart{uart_line, [this](ConstByteSpan bytes) { sent += bytes.size(); }};
  Rtc rtc{rtc_line, [this] { return now; }, 64 * kMiB};
  AcpiPm fixed{events, pm_line, PowerButton::kFixed, [this] { return now; }};
  AcpiPm reduced{events, pm_line, PowerButton::kEventDevice, [this] { return now; }};
  I8042 keyboard{events};
  PciPorts pci{events};
  DebugExit debug_exit{events};
  PostPort post;

  struct Target {
    Device* device;
    u64 size;
  };
  Target target(u8 number) {
    switch (number % 8) {
      case 0:
        return {&uart, Uart16550::kSize};
      case 1:
        return {&rtc, Rtc::kSize};
      case 2:
        return {&fixed, AcpiPm::kSize};
      case 3:
        return {&reduced, AcpiPm::kSize};
      case 4:
        return {&keyboard.data_port(), 1};
      case 5:
        return {&keyboard.command_port(), 1};
      case 6:
        return {&pci, PciPorts::kSize};
      default:
        return {&debug_exit, DebugExit::kSize};
    }
  }

  // One step of 4 bytes: what, where, width and value.
  void step(const u8* op) {
    if ((op[0] & 0xc0) == 0xc0) return event(op);
    const Target to = target(op[0]);
    const u64 offset = op[1] % to.size;
    const u64 width = std::min<u64>(u64{1} << (op[2] & 3), to.size - offset);
    u8 data[8] = {op[3], op[2], op[3], op[1], op[3], op[2], op[3], op[1]};
    if ((op[0] & 0x20) != 0) {
      to.device->write(offset, ConstByteSpan(data, width));
    } else {
      to.device->read(offset, ByteSpan(data, width));
    }
  }

  void event(const u8* op) {
    switch (op[0] & 3) {
      case 0:
        now += (u64{1} << (op[1] & 63)) % (u64{400} * 86400 * 1000000000);
        break;
      case 1:
        rtc.poll();
        break;
      case 2:
        fixed.press_power_button();
        reduced.press_power_button();
        break;
      default: {
        const std::vector<u8> typed(op[1] * 40, op[3]);
        if (uart.offer_input(typed) > typed.size()) __builtin_trap();
        break;
      }
    }
    if (now > u64{4000000000} * 1000000000) now = 0;  // the host's clock is set back
    if (const auto deadline = rtc.next_deadline(); deadline && rtc_line.level) __builtin_trap();
  }
};

}  // namespace
}  // namespace smol::devices::legacy

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  smol::devices::legacy::Machine machine;
  for (; size >= 4; data += 4, size -= 4) machine.step(data);
  return 0;
}

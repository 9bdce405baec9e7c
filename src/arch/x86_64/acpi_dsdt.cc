// The DSDT: what the fixed tables cannot say. Devices with their resources, the soft-off sleep
// type, the power button and, on reduced hardware, the generic event device that turns a line into
// a notification. Device ids: LNRO0005 virtio-mmio (Linux), PNP0501 16550A, PNP0B00 RTC, PNP0C0C
// power button, ACPI0013 generic event device, PNP0A08 PCI Express host bridge.
#include <fmt/format.h>

#include "arch/x86_64/acpi.h"
#include "arch/x86_64/aml.h"

namespace smol::arch::x86_64 {
namespace {

using aml::Bytes;

constexpr u8 kPowerButtonPressed = 0x80;

Bytes serial_device() {
  return aml::device(
      "COM1",
      aml::join(
          {aml::name("_HID", aml::eisa_id("PNP0501")), aml::name("_UID", aml::integer(0)),
           aml::name("_CRS", aml::resources({aml::io_ports(0x3f8, 8), aml::irq(kSerialIrq)}))}));
}

Bytes rtc_device() {
  return aml::device(
      "RTC_",
      aml::join({aml::name("_HID", aml::eisa_id("PNP0B00")),
                 aml::name("_CRS", aml::resources({aml::io_ports(0x70, 2), aml::irq(kRtcIrq)}))}));
}

Bytes virtio_device(u32 index, const AcpiVirtioDevice& device) {
  const Bytes crs =
      aml::resources({aml::memory32(static_cast<u32>(device.address.value), kVirtioMmioSize),
                      aml::interrupt(device.irq, aml::Trigger::kEdge)});
  return aml::device(
      fmt::format("VR{:02X}", index),
      aml::join({aml::name("_HID", aml::string("LNRO0005")), aml::name("_UID", aml::integer(index)),
                 aml::name("_CCA", aml::integer(1)), aml::name("_CRS", crs)}));
}

Bytes power_button() { return aml::device("PWRB", aml::name("_HID", aml::eisa_id("PNP0C0C"))); }

// Its line is raised when a bit of the event register is set; _EVT reads (and so clears) the
// register.
Bytes generic_event_device() {
  const Bytes event =
      aml::join({aml::store(aml::path("ESEL"), aml::local0()),
                 aml::if_true(aml::bit_and(aml::local0(), aml::integer(kAcpiGedPowerButton)),
                              aml::notify("\\_SB.PWRB", kPowerButtonPressed))});
  return aml::device(
      "GED_",
      aml::join({aml::name("_HID", aml::string("ACPI0013")), aml::name("_UID", aml::integer(0)),
                 aml::name("_CRS", aml::resources({aml::interrupt(kAcpiIrq, aml::Trigger::kEdge)})),
                 aml::port_region("EREG", kAcpiPmPort + kAcpiGedEvent, 1),
                 aml::byte_field("EREG", "ESEL"), aml::method("_EVT", 1, event)}));
}

Bytes host_bridge() {
  const u32 window = static_cast<u32>(kPciEcam.value + 256 * kMiB / 2);
  const Bytes crs =
      aml::resources({aml::bus_numbers(0, kPciEcamBuses), aml::io_ports(0xcf8, 8),
                      aml::memory_window(window, static_cast<u32>(kVirtioMmio.value) - window)});
  return aml::device("PCI0",
                     aml::join({aml::name("_HID", aml::eisa_id("PNP0A08")),
                                aml::name("_CID", aml::eisa_id("PNP0A03")),
                                aml::name("_UID", aml::integer(0)), aml::name("_CRS", crs)}));
}

}  // namespace

std::vector<u8> build_dsdt_body(const AcpiConfig& config) {
  Bytes devices;
  const auto add = [&devices](const Bytes& device) {
    devices.insert(devices.end(), device.begin(), device.end());
  };
  if (config.serial) add(serial_device());
  if (config.rtc) add(rtc_device());
  for (u32 i = 0; i < config.virtio.size(); ++i) add(virtio_device(i, config.virtio[i]));
  if (config.hardware == AcpiHardware::kReduced) {
    add(power_button());
    add(generic_event_device());
  }
  if (config.pci) add(host_bridge());
  const Bytes sleep =
      aml::name("\\_S5_", aml::package({aml::integer(kAcpiSleepTypeS5), aml::integer(0),
                                        aml::integer(0), aml::integer(0)}));
  return aml::join({aml::scope("\\_SB_", devices), sleep});
}

}  // namespace smol::arch::x86_64

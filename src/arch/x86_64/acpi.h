// The ACPI tables of the machine: RSDP, RSDT and XSDT, FADT, MADT, DSDT, FACS (full mode only),
// MCFG (with PCI only). Source: ACPI specification 6.5, chapter 5; PCI Firmware
// Specification 3.3, 4.1.2 (MCFG).
//
// Two flavours of the fixed hardware: hardware-reduced (sleep through SLEEP_CONTROL, the power
// button through a generic event device) and full (PM1 event and control blocks, PM timer, SCI).
#pragma once

#include <string>
#include <vector>

#include "arch/x86_64/memory_map.h"
#include "base/result.h"

namespace smol::arch::x86_64 {

// Registers that the tables point at, as port offsets from kAcpiPmPort. The power management device
// implements them.
inline constexpr u16 kAcpiPmPort = 0x600;
inline constexpr u16 kAcpiPmEvent = 0x00, kAcpiPmControl = 0x04, kAcpiPmTimer = 0x08,
                     kAcpiSleepControl = 0x10, kAcpiSleepStatus = 0x11, kAcpiGedEvent = 0x14;
inline constexpr u8 kAcpiSleepTypeS5 = 0;        // SLP_TYP of soft off
inline constexpr u8 kAcpiGedPowerButton = 0x01;  // bit of the event register; reading clears it
inline constexpr u16 kAcpiResetPort = 0xcf9;
inline constexpr u8 kAcpiResetValue = 0x06;

enum class AcpiHardware { kReduced, kFull };

struct AcpiVirtioDevice {
  GuestPhysical address;  // below 4 GiB; window of kVirtioMmioSize
  u32 irq = 0;            // edge
};

struct AcpiConfig {
  u32 cpu_count = 1;  // local APIC ids 0 .. cpu_count-1
  AcpiHardware hardware = AcpiHardware::kReduced;
  bool serial = true;  // COM1
  bool rtc = true;
  bool pci = false;                      // host bridge with the ECAM window of memory_map.h
  std::vector<AcpiVirtioDevice> virtio;  // not to be told on the command line as well
};

inline constexpr u32 kMaxAcpiCpus = 1024;
inline constexpr u32 kMaxAcpiVirtioDevices = 256;

struct AcpiTable {
  std::string signature;
  GuestPhysical address;
  std::vector<u8> bytes;
};

// All tables with their addresses from kAcpiTables on; the first is the RSDP.
Result<std::vector<AcpiTable>> build_acpi_tables(const AcpiConfig& config);

// Writes them; gives the RSDP's address, for BootInputs::rsdp.
Result<GuestPhysical> write_acpi_tables(GuestMemory& memory, const AcpiConfig& config);

// The DSDT's definition block, without the table header (tests).
std::vector<u8> build_dsdt_body(const AcpiConfig& config);

}  // namespace smol::arch::x86_64

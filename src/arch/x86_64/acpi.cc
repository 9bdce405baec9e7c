// Tables are built as byte vectors with the fields put at the offsets that the specification names;
// addresses are given out while building, so that each table knows those below it.
#include "arch/x86_64/acpi.h"

#include <string_view>

#include "base/check.h"

namespace smol::arch::x86_64 {
namespace {

constexpr u64 kHeaderSize = 36;
constexpr u64 kAlignment = 64;  // FACS needs it
constexpr u8 kSystemIoSpace = 1;

u8 checksum(ConstByteSpan bytes) {
  u8 sum = 0;
  for (const u8 byte : bytes) sum = static_cast<u8>(sum + byte);
  return static_cast<u8>(-sum);
}

template <class T>
void put(std::vector<u8>& table, u64 offset, T value) {
  CHECK(offset + sizeof(T) <= table.size());
  base::store(&table[offset], value);
}

void put_text(std::vector<u8>& table, u64 offset, std::string_view text) {
  CHECK(offset + text.size() <= table.size());
  std::memcpy(&table[offset], text.data(), text.size());
}

template <class T>
void append(std::vector<u8>& table, T value) {
  table.resize(table.size() + sizeof(T));
  base::store(&table[table.size() - sizeof(T)], value);
}

std::vector<u8> begin_table(std::string_view signature, u8 revision, u64 size = kHeaderSize) {
  std::vector<u8> table(size);
  put_text(table, 0, signature);
  table[8] = revision;
  put_text(table, 10, "SMOL  ");
  put_text(table, 16, "SMOLVMM ");
  put<u32>(table, 24, 1);
  put_text(table, 28, "SMOL");
  put<u32>(table, 32, 1);
  return table;
}

std::vector<u8> end_table(std::vector<u8> table) {
  put<u32>(table, 4, static_cast<u32>(table.size()));
  table[9] = 0;
  table[9] = checksum(table);
  return table;
}

// Generic address structure (5.2.3.2) of a port.
void put_port(std::vector<u8>& table, u64 offset, u16 port, u8 bytes) {
  table[offset] = kSystemIoSpace;
  table[offset + 1] = static_cast<u8>(bytes * 8);
  table[offset + 3] = bytes == 4 ? 3 : bytes;  // access size: 1 byte, 2 word, 3 double word
  put<u64>(table, offset + 4, port);
}

void put_full_hardware(std::vector<u8>& fadt) {
  constexpr u16 kEvent = kAcpiPmPort + kAcpiPmEvent, kControl = kAcpiPmPort + kAcpiPmControl,
                kTimer = kAcpiPmPort + kAcpiPmTimer;
  put<u16>(fadt, 46, kAcpiIrq);  // SCI_INT; SMI_CMD stays 0: the machine is always in ACPI mode
  put<u32>(fadt, 56, kEvent);
  put<u32>(fadt, 64, kControl);
  put<u32>(fadt, 76, kTimer);
  fadt[88] = 4;
  fadt[89] = 2;
  fadt[91] = 4;
  put_port(fadt, 148, kEvent, 4);
  fadt[148 + 3] = 2;  // two 16-bit registers
  put_port(fadt, 172, kControl, 2);
  put_port(fadt, 208, kTimer, 4);
}

std::vector<u8> build_fadt(const AcpiConfig& config, GuestPhysical dsdt, GuestPhysical facs) {
  constexpr u32 kWbinvd = 1u << 0, kC1 = 1u << 2, kPowerButtonMethod = 1u << 4,
                kSleepButtonMethod = 1u << 5, kNoRtcStatus = 1u << 6, kTimer32 = 1u << 8,
                kResetRegister = 1u << 10, kReducedHardware = 1u << 20;
  constexpr u16 kLegacyDevices = 1u << 0, kNoVga = 1u << 2, kNoRtc = 1u << 5;
  std::vector<u8> fadt = begin_table("FACP", 6, 276);
  const bool reduced = config.hardware == AcpiHardware::kReduced;
  put<u32>(fadt, 36, static_cast<u32>(facs.value));
  put<u32>(fadt, 40, static_cast<u32>(dsdt.value));
  put<u16>(fadt, 96, 0xffff);  // no C2
  put<u16>(fadt, 98, 0xffff);  // no C3
  fadt[108] = 0x32;            // the RTC's century register
  put<u16>(
      fadt, 109,
      static_cast<u16>(kNoVga | (config.serial ? kLegacyDevices : 0) | (config.rtc ? 0 : kNoRtc)));
  put<u32>(fadt, 112,
           kWbinvd | kC1 | kSleepButtonMethod | kNoRtcStatus | kResetRegister |
               (reduced ? kReducedHardware | kPowerButtonMethod : kTimer32));
  put_port(fadt, 116, kAcpiResetPort, 1);
  fadt[128] = kAcpiResetValue;
  fadt[131] = 5;  // 6.5
  put<u64>(fadt, 140, dsdt.value);
  if (reduced) {
    put_port(fadt, 244, kAcpiPmPort + kAcpiSleepControl, 1);
    put_port(fadt, 256, kAcpiPmPort + kAcpiSleepStatus, 1);
  } else {
    put_full_hardware(fadt);
  }
  put_text(fadt, 268, "SMOLVMM");
  return end_table(std::move(fadt));
}

std::vector<u8> build_facs() {
  std::vector<u8> facs(64);
  put_text(facs, 0, "FACS");
  put<u32>(facs, 4, 64);
  facs[32] = 2;
  return facs;
}

void append_cpu(std::vector<u8>& madt, u32 id) {
  if (id < 255) {
    for (const u8 byte : {u8{0}, u8{8}, static_cast<u8>(id), static_cast<u8>(id)})
      madt.push_back(byte);
    append<u32>(madt, 1);  // enabled
    return;
  }
  append<u16>(madt, 0x1009);  // local x2APIC, 16 bytes
  append<u16>(madt, 0);
  append<u32>(madt, id);
  append<u32>(madt, 1);
  append<u32>(madt, id);
}

std::vector<u8> build_madt(const AcpiConfig& config) {
  std::vector<u8> madt = begin_table("APIC", 5);
  append<u32>(madt, static_cast<u32>(kLocalApic.value));
  append<u32>(madt, 1);  // there are PICs too
  for (u32 id = 0; id < config.cpu_count; ++id) append_cpu(madt, id);
  append<u16>(madt, 0x0c01);  // I/O APIC
  append<u8>(madt, 0);        // its id
  append<u8>(madt, 0);
  append<u32>(madt, static_cast<u32>(kIoApic.value));
  append<u32>(madt, 0);  // first line
  if (config.hardware == AcpiHardware::kFull) {
    append<u16>(madt, 0x0a02);  // the SCI is level triggered, active high
    append<u8>(madt, 0);
    append<u8>(madt, kAcpiIrq);
    append<u32>(madt, kAcpiIrq);
    append<u16>(madt, 0x000d);
  }
  append<u16>(madt, 0x0604);  // NMI on LINT1 of every processor
  append<u8>(madt, 0xff);
  append<u16>(madt, 0);
  append<u8>(madt, 1);
  return end_table(std::move(madt));
}

std::vector<u8> build_mcfg() {
  std::vector<u8> mcfg = begin_table("MCFG", 1);
  append<u64>(mcfg, 0);
  append<u64>(mcfg, kPciEcam.value);
  append<u16>(mcfg, 0);
  append<u8>(mcfg, 0);
  append<u8>(mcfg, kPciEcamBuses - 1);
  append<u32>(mcfg, 0);
  return end_table(std::move(mcfg));
}

std::vector<u8> build_dsdt(const AcpiConfig& config) {
  std::vector<u8> dsdt = begin_table("DSDT", 2);  // 2: 64-bit integers
  const std::vector<u8> body = build_dsdt_body(config);
  dsdt.insert(dsdt.end(), body.begin(), body.end());
  return end_table(std::move(dsdt));
}

std::vector<u8> build_rsdp(GuestPhysical rsdt, GuestPhysical xsdt) {
  std::vector<u8> rsdp(36);
  put_text(rsdp, 0, "RSD PTR ");
  put_text(rsdp, 9, "SMOL  ");
  rsdp[15] = 2;
  put<u32>(rsdp, 16, static_cast<u32>(rsdt.value));
  put<u32>(rsdp, 20, 36);
  put<u64>(rsdp, 24, xsdt.value);
  rsdp[8] = checksum(ConstByteSpan(rsdp).first(20));
  rsdp[32] = checksum(rsdp);
  return rsdp;
}

Result<> check_config(const AcpiConfig& config) {
  if (config.cpu_count == 0 || config.cpu_count > kMaxAcpiCpus) {
    return fail("ACPI tables for {} processors: 1 to {} are possible", config.cpu_count,
                kMaxAcpiCpus);
  }
  if (config.virtio.size() > kMaxAcpiVirtioDevices) {
    return fail("ACPI tables for {} virtio-mmio devices: at most {}", config.virtio.size(),
                kMaxAcpiVirtioDevices);
  }
  for (const AcpiVirtioDevice& device : config.virtio) {
    if (device.address.value > memory::kHoleEnd - kVirtioMmioSize) {
      return fail("a virtio-mmio device at {:#x}: its window must lie below 4 GiB",
                  device.address.value);
    }
    if (device.irq >= kIoApicPins) {
      return fail("a virtio-mmio device on line {}: the I/O APIC has {} lines", device.irq,
                  kIoApicPins);
    }
  }
  return {};
}

}  // namespace

Result<std::vector<AcpiTable>> build_acpi_tables(const AcpiConfig& config) {
  TRY(check_config(config));
  // RSDP, RSDT and XSDT come first and have a known size; what they point at follows.
  const u64 pointers = 3u + (config.pci ? 1 : 0);
  const GuestPhysical rsdt = kAcpiTables + kAlignment;
  const GuestPhysical xsdt = rsdt + base::align_up(kHeaderSize + pointers * 4, kAlignment);
  GuestPhysical next = xsdt + base::align_up(kHeaderSize + pointers * 8, kAlignment);
  std::vector<AcpiTable> tables;
  const auto add = [&](std::string_view signature, std::vector<u8> bytes) {
    const GuestPhysical at = next;
    next = next + base::align_up(bytes.size(), kAlignment);
    tables.push_back({std::string(signature), at, std::move(bytes)});
    return at;
  };
  const GuestPhysical dsdt = add("DSDT", build_dsdt(config));
  const GuestPhysical facs =
      config.hardware == AcpiHardware::kFull ? add("FACS", build_facs()) : GuestPhysical(0);
  std::vector<GuestPhysical> roots{add("FACP", build_fadt(config, dsdt, facs)),
                                   add("APIC", build_madt(config))};
  if (config.pci) roots.push_back(add("MCFG", build_mcfg()));
  CHECK(roots.size() <= pointers);
  std::vector<u8> rsdt_bytes = begin_table("RSDT", 1), xsdt_bytes = begin_table("XSDT", 1);
  for (const GuestPhysical root : roots) {
    append<u32>(rsdt_bytes, static_cast<u32>(root.value));
    append<u64>(xsdt_bytes, root.value);
  }
  tables.insert(tables.begin(), {{"RSDP", kAcpiTables, build_rsdp(rsdt, xsdt)},
                                 {"RSDT", rsdt, end_table(std::move(rsdt_bytes))},
                                 {"XSDT", xsdt, end_table(std::move(xsdt_bytes))}});
  if (next - kAcpiTables > kAcpiTablesSize) {
    return fail("the ACPI tables take {} bytes, {} are there", next - kAcpiTables, kAcpiTablesSize);
  }
  return tables;
}

Result<GuestPhysical> write_acpi_tables(GuestMemory& memory, const AcpiConfig& config) {
  TRY_ASSIGN(const std::vector<AcpiTable> tables, build_acpi_tables(config));
  for (const AcpiTable& table : tables) TRY(memory.write(table.address, table.bytes));
  return tables.front().address;
}

}  // namespace smol::arch::x86_64

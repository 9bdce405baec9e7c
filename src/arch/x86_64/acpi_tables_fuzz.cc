// Any configuration gives an error or tables whose sums are 0, whose lengths are theirs, and which
// do not overlap.
#include "arch/x86_64/acpi.h"

namespace {

using namespace smol;
using namespace smol::arch::x86_64;

AcpiConfig config_from(ConstByteSpan input) {
  AcpiConfig config;
  const auto take = [&input]() -> u8 {
    if (input.empty()) return 0;
    const u8 value = input[0];
    input = input.subspan(1);
    return value;
  };
  const u8 flags = take();
  config.hardware = (flags & 1) != 0 ? AcpiHardware::kFull : AcpiHardware::kReduced;
  config.serial = (flags & 2) != 0;
  config.rtc = (flags & 4) != 0;
  config.pci = (flags & 8) != 0;
  config.cpu_count = take() | (take() & 7) << 8;
  while (!input.empty()) {
    u64 address = 0;
    for (int i = 0; i < 5; ++i) address = address << 8 | take();
    config.virtio.push_back(
        {GuestPhysical((flags & 0x80) != 0 ? address : address & 0xfffff000), take() & 0x1fu});
  }
  return config;
}

u8 sum(const std::vector<u8>& bytes) {
  u8 total = 0;
  for (const u8 byte : bytes) total = static_cast<u8>(total + byte);
  return total;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto tables = build_acpi_tables(config_from({data, size}));
  if (!tables) return 0;
  for (const AcpiTable& table : *tables) {
    const u64 end = table.address.value + table.bytes.size();
    if (table.address < kAcpiTables || end > kAcpiTables.value + kAcpiTablesSize) __builtin_trap();
    for (const AcpiTable& other : *tables) {
      if (&other != &table && other.address.value < end &&
          table.address.value < other.address.value + other.bytes.size()) {
        __builtin_trap();
      }
    }
    if (table.signature == "FACS") continue;
    if (sum(table.bytes) != 0) __builtin_trap();
    if (table.signature != "RSDP" && base::load<u32>(&table.bytes[4]) != table.bytes.size())
      __builtin_trap();
  }
  return 0;
}

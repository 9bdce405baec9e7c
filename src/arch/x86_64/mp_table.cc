// All 24 I/O APIC pins are told as ISA interrupts of the same number (line n = pin n), so that any
// line a device gets is known to the kernel. LINT0 takes the PIC (ExtINT, virtual wire mode), LINT1
// the NMI.
#include "arch/x86_64/mp_table.h"

#include <string_view>
#include <vector>

namespace smol::arch::x86_64 {
namespace {

enum EntryType : u8 {
  kProcessor = 0,
  kBus = 1,
  kIoApicEntry = 2,
  kIoInterrupt = 3,
  kLocalInterrupt = 4
};
enum InterruptType : u8 { kInt = 0, kNmi = 1, kExtInt = 3 };

constexpr u8 kSpecification14 = 4;
constexpr u8 kLocalApicVersion = 0x14, kIoApicVersion = 0x11;
constexpr u8 kIsaBus = 0;
constexpr u8 kAllLocalApics = 0xff;
constexpr u64 kFloatingPointerSize = 16;

class Table {
 public:
  void byte(u8 value) { bytes_.push_back(value); }
  void word(u16 value) { append(&value, 2); }
  void dword(u32 value) { append(&value, 4); }
  void text(std::string_view value) { append(value.data(), value.size()); }
  void zeros(std::size_t count) { bytes_.resize(bytes_.size() + count); }
  std::vector<u8>& bytes() { return bytes_; }

 private:
  void append(const void* from, std::size_t size) {
    const u8* const at = static_cast<const u8*>(from);
    bytes_.insert(bytes_.end(), at, at + size);
  }
  std::vector<u8> bytes_;
};

// The byte that makes the sum of all bytes 0.
u8 checksum(ConstByteSpan bytes) {
  u8 sum = 0;
  for (const u8 byte : bytes) sum = static_cast<u8>(sum + byte);
  return static_cast<u8>(-sum);
}

void add_interrupt(Table& table, EntryType entry, InterruptType type, u8 irq, u8 apic, u8 pin) {
  table.byte(entry);
  table.byte(type);
  table.word(0);  // polarity and trigger conform to the bus
  table.byte(kIsaBus);
  table.byte(irq);
  table.byte(apic);
  table.byte(pin);
}

std::vector<u8> build_table(u32 cpu_count, u32 signature, u32 features) {
  Table table;
  table.text("PCMP");
  table.zeros(2);  // length, below
  table.byte(kSpecification14);
  table.zeros(1);  // checksum, below
  table.text("SMOL    ");
  table.text("SMOLVMM     ");
  table.zeros(6);  // no OEM table
  table.word(static_cast<u16>(cpu_count + 2 + kIoApicPins + 2));
  table.dword(static_cast<u32>(kLocalApic.value));
  table.zeros(4);  // no extended table
  for (u32 id = 0; id < cpu_count; ++id) {
    table.byte(kProcessor);
    table.byte(static_cast<u8>(id));
    table.byte(kLocalApicVersion);
    table.byte(id == 0 ? 3 : 1);  // enabled; bootstrap processor
    table.dword(signature);
    table.dword(features);
    table.zeros(8);
  }
  table.byte(kBus);
  table.byte(kIsaBus);
  table.text("ISA   ");
  const u8 io_apic_id = static_cast<u8>(cpu_count);
  table.byte(kIoApicEntry);
  table.byte(io_apic_id);
  table.byte(kIoApicVersion);
  table.byte(1);  // usable
  table.dword(static_cast<u32>(kIoApic.value));
  for (u8 pin = 0; pin < kIoApicPins; ++pin)
    add_interrupt(table, kIoInterrupt, kInt, pin, io_apic_id, pin);
  add_interrupt(table, kLocalInterrupt, kExtInt, 0, kAllLocalApics, 0);
  add_interrupt(table, kLocalInterrupt, kNmi, 0, kAllLocalApics, 1);
  base::store<u16>(&table.bytes()[4], static_cast<u16>(table.bytes().size()));
  table.bytes()[7] = checksum(table.bytes());
  return std::move(table.bytes());
}

std::vector<u8> build_floating_pointer(GuestPhysical configuration) {
  Table table;
  table.text("_MP_");
  table.dword(static_cast<u32>(configuration.value));
  table.byte(1);  // 16-byte units
  table.byte(kSpecification14);
  table.zeros(6);  // checksum, then features: a configuration table, virtual wire mode
  table.bytes()[10] = checksum(table.bytes());
  return std::move(table.bytes());
}

}  // namespace

Result<> write_mp_table(GuestMemory& memory, u32 cpu_count, u32 cpu_signature, u32 features) {
  if (cpu_count == 0 || cpu_count > kMaxMpTableCpus) {
    return fail("an MP table holds 1 to {} processors, not {}; turn ACPI on", kMaxMpTableCpus,
                cpu_count);
  }
  const std::vector<u8> table = build_table(cpu_count, cpu_signature, features);
  const bool fits = table.size() <= kEbdaSize - kFloatingPointerSize;
  const GuestPhysical at = fits ? kEbda + kFloatingPointerSize : kMpTableOverflow;
  TRY(memory.write(at, table));
  TRY(memory.write(kEbda, build_floating_pointer(at)));
  TRY(memory.store<u16>(kBiosDataArea + 0xe, static_cast<u16>(kEbda.value >> 4)));
  return memory.store<u16>(kBiosDataArea + 0x13, static_cast<u16>(kEbda.value / kKiB));
}

}  // namespace smol::arch::x86_64

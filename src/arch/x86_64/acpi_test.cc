// The tables as a kernel walks them, the AML's encodings, and iasl's opinion of the DSDT where iasl
// is installed.
#include "arch/x86_64/acpi.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <numeric>
#include <sstream>

#include "arch/x86_64/aml.h"

namespace smol::arch::x86_64 {
namespace {

using aml::Bytes;

TEST(Aml, Encodings) {
  EXPECT_EQ(aml::integer(0), (Bytes{0x00}));
  EXPECT_EQ(aml::integer(1), (Bytes{0x01}));
  EXPECT_EQ(aml::integer(0x80), (Bytes{0x0a, 0x80}));
  EXPECT_EQ(aml::integer(0x1234), (Bytes{0x0b, 0x34, 0x12}));
  EXPECT_EQ(aml::integer(0x12345678), (Bytes{0x0c, 0x78, 0x56, 0x34, 0x12}));
  EXPECT_EQ(aml::integer(u64{1} << 32).size(), 9u);
  EXPECT_EQ(aml::eisa_id("PNP0501"), (Bytes{0x0c, 0x41, 0xd0, 0x05, 0x01}));
  EXPECT_EQ(aml::eisa_id("PNP0A08"), (Bytes{0x0c, 0x41, 0xd0, 0x0a, 0x08}));
  EXPECT_EQ(aml::path("\\_SB.PWRB"), (Bytes{'\\', 0x2e, '_', 'S', 'B', '_', 'P', 'W', 'R', 'B'}));
  EXPECT_EQ(aml::path("A.B.C").size(), 2u + 12);
  EXPECT_EQ(aml::path("\\"), (Bytes{'\\', 0}));
  EXPECT_EQ(aml::string("ab"), (Bytes{0x0d, 'a', 'b', 0}));
}

TEST(Aml, PackageLengthsCountThemselves) {
  const auto length_bytes = [](u64 content) {
    Bytes filler(content - 4);
    return aml::scope("X", filler).size() - content - 1;  // opcode
  };
  EXPECT_EQ(length_bytes(62), 1u);
  EXPECT_EQ(length_bytes(63), 2u);
  EXPECT_EQ(length_bytes(4093), 2u);
  EXPECT_EQ(length_bytes(4094), 3u);
  EXPECT_EQ(length_bytes(1048572), 3u);
  EXPECT_EQ(length_bytes(1048573), 4u);
  const Bytes scope = aml::scope("X", Bytes(100));
  EXPECT_EQ(scope[1] >> 6, 1);
  EXPECT_EQ((scope[1] & 0xf) | (scope[2] << 4), 106);
}

u8 sum(ConstByteSpan bytes) { return std::accumulate(bytes.begin(), bytes.end(), u8{0}); }

struct Flavour {
  AcpiHardware hardware;
  bool pci;
  u32 cpus;
};

AcpiConfig config_for(const Flavour& flavour) {
  AcpiConfig config{
      .cpu_count = flavour.cpus, .hardware = flavour.hardware, .pci = flavour.pci, .virtio = {}};
  for (u32 i = 0; i < 8; ++i) config.virtio.push_back({virtio_mmio_address(i), virtio_mmio_irq(i)});
  return config;
}

constexpr Flavour kFlavours[] = {{AcpiHardware::kReduced, false, 1},
                                 {AcpiHardware::kReduced, true, 4},
                                 {AcpiHardware::kFull, false, 2},
                                 {AcpiHardware::kFull, true, 300}};

// Follows the pointers in guest memory from the RSDP.
TEST(Acpi, TablesAreLinkedAndSummed) {
  for (const Flavour& flavour : kFlavours) {
    auto memory = *GuestMemory::create(2 * kMiB);
    const auto rsdp = write_acpi_tables(*memory, config_for(flavour));
    ASSERT_TRUE(rsdp) << rsdp.error().chain();
    const auto bytes_at = [&](u64 address, u64 size) {
      return ConstByteSpan(memory->find(GuestPhysical(address), size), size);
    };
    const auto table_at = [&](u64 address) {
      return bytes_at(address, *memory->load<u32>(GuestPhysical(address + 4)));
    };
    const auto pointer = bytes_at(rsdp->value, 36);
    EXPECT_EQ(sum(pointer.first(20)), 0);
    EXPECT_EQ(sum(pointer), 0);
    EXPECT_EQ(rsdp->value % 16, 0u);
    const auto xsdt = table_at(base::load<u64>(&pointer[24]));
    const auto rsdt = table_at(base::load<u32>(&pointer[16]));
    EXPECT_EQ(sum(xsdt), 0);
    EXPECT_EQ(sum(rsdt), 0);
    ASSERT_EQ((xsdt.size() - 36) / 8, flavour.pci ? 3u : 2u);
    ASSERT_EQ((rsdt.size() - 36) / 4, flavour.pci ? 3u : 2u);
    for (std::size_t i = 0; i < (xsdt.size() - 36) / 8; ++i) {
      const u64 address = base::load<u64>(&xsdt[36 + i * 8]);
      EXPECT_EQ(base::load<u32>(&rsdt[36 + i * 4]), address);
      EXPECT_EQ(sum(table_at(address)), 0);
    }
    const auto fadt = table_at(base::load<u64>(&xsdt[36]));
    EXPECT_EQ(std::memcmp(fadt.data(), "FACP", 4), 0);
    const auto dsdt = table_at(base::load<u64>(&fadt[140]));
    EXPECT_EQ(std::memcmp(dsdt.data(), "DSDT", 4), 0);
    EXPECT_EQ(sum(dsdt), 0);
    const bool reduced = flavour.hardware == AcpiHardware::kReduced;
    EXPECT_EQ((base::load<u32>(&fadt[112]) >> 20) & 1, reduced ? 1u : 0u);
    EXPECT_EQ(base::load<u64>(&fadt[248]), reduced ? 0x610u : 0u) << "sleep control";
    EXPECT_EQ(base::load<u32>(&fadt[64]), reduced ? 0u : 0x604u) << "PM1 control";
    EXPECT_EQ(base::load<u64>(&fadt[120]), 0xcf9u);
    if (!reduced) {
      const u32 facs = base::load<u32>(&fadt[36]);
      EXPECT_EQ(facs % 64, 0u);
      EXPECT_EQ(std::memcmp(bytes_at(facs, 4).data(), "FACS", 4), 0);
    }
  }
}

TEST(Acpi, MadtEntries) {
  const auto tables = *build_acpi_tables(config_for({AcpiHardware::kFull, false, 300}));
  for (const AcpiTable& table : tables) {
    if (table.signature != "APIC") continue;
    u32 counts[16] = {};
    u64 at = 44;
    while (at < table.bytes.size()) {
      ASSERT_LT(table.bytes[at], 16);
      ASSERT_GE(table.bytes[at + 1], 2);
      ++counts[table.bytes[at]];
      at += table.bytes[at + 1];
    }
    EXPECT_EQ(at, table.bytes.size());
    EXPECT_EQ(counts[0], 255u);
    EXPECT_EQ(counts[9], 45u);
    EXPECT_EQ(counts[1], 1u);
    EXPECT_EQ(counts[2], 1u);
    EXPECT_EQ(counts[4], 1u);
    return;
  }
  FAIL() << "no MADT";
}

TEST(Acpi, RefusesImpossibleConfigs) {
  EXPECT_FALSE(build_acpi_tables({.cpu_count = 0, .virtio = {}}));
  EXPECT_FALSE(build_acpi_tables({.cpu_count = 5000, .virtio = {}}));
  EXPECT_FALSE(build_acpi_tables({.virtio = {{GuestPhysical(u64{1} << 32), 5}}}));
  EXPECT_FALSE(build_acpi_tables({.virtio = {{kVirtioMmio, 24}}}));
  AcpiConfig many;
  many.virtio.resize(257);
  EXPECT_FALSE(build_acpi_tables(many));
  many.virtio.resize(256);
  EXPECT_TRUE(build_acpi_tables(many));
}

std::string run(const std::string& command, int& status) {
  std::FILE* const pipe = popen(command.c_str(), "r");
  std::string output;
  std::array<char, 4096> buffer;
  while (const std::size_t got = std::fread(buffer.data(), 1, buffer.size(), pipe))
    output.append(buffer.data(), got);
  status = pclose(pipe);
  return output;
}

// Disassembles each flavour's DSDT and compiles the result again: both must succeed without an
// error, and the source must say what was meant.
TEST(Acpi, IaslUnderstandsTheDsdt) {
  if (std::system("command -v iasl >/dev/null 2>&1") != 0)
    GTEST_SKIP() << "iasl (acpica-tools) is not installed";
  char folder[] = "/tmp/smol-acpi-XXXXXX";
  ASSERT_NE(mkdtemp(folder), nullptr);
  const std::string base = std::string(folder) + "/dsdt";
  for (const Flavour& flavour : kFlavours) {
    const auto tables = *build_acpi_tables(config_for(flavour));
    for (const AcpiTable& table : tables) {
      if (table.signature != "DSDT") continue;
      std::ofstream(base + ".aml", std::ios::binary)
          .write(reinterpret_cast<const char*>(table.bytes.data()),
                 static_cast<std::streamsize>(table.bytes.size()));
    }
    int status = 0;
    const std::string out = run(
        "cd " + std::string(folder) + " && iasl -d dsdt.aml 2>&1 && iasl -p again dsdt.dsl 2>&1",
        status);
    EXPECT_EQ(status, 0) << out;
    EXPECT_NE(out.find(" 0 Errors"), std::string::npos) << out;
    std::ifstream source(base + ".dsl");
    std::stringstream text;
    text << source.rdbuf();
    EXPECT_NE(text.str().find("LNRO0005"), std::string::npos) << text.str();
    EXPECT_NE(text.str().find("0xD0007000"), std::string::npos) << text.str();
    EXPECT_NE(text.str().find("PNP0501"), std::string::npos) << text.str();
    EXPECT_EQ(text.str().find("Notify (\\_SB.PWRB, 0x80)") != std::string::npos,
              flavour.hardware == AcpiHardware::kReduced)
        << text.str();
    EXPECT_EQ(text.str().find("PNP0A08") != std::string::npos, flavour.pci) << text.str();
  }
  EXPECT_EQ(std::system(("rm -rf " + std::string(folder)).c_str()), 0);
}

}  // namespace
}  // namespace smol::arch::x86_64

#include "hypervisor/kvm/kvm.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

#include "hypervisor/kvm/cpuid.h"
#include "hypervisor/kvm/probe.h"

namespace smol::hypervisor::kvm {
namespace {

TEST(Probe, TellsAMissingDevice) {
  const KvmStatus status = probe("/nonexistent/kvm");
  EXPECT_EQ(status.fitness, KvmFitness::kMissing) << status.reason;
  EXPECT_NE(status.reason.find("/nonexistent/kvm"), std::string::npos) << status.reason;
}

TEST(Probe, TellsADeviceThatIsNotKvm) {
  const KvmStatus status = probe("/dev/null");
  EXPECT_EQ(status.fitness, KvmFitness::kBroken) << status.reason;
  EXPECT_NE(status.reason.find("/dev/null"), std::string::npos) << status.reason;
}

TEST(Probe, TellsAForbiddenDevice) {
  if (::geteuid() == 0) {
    // Root may open anything; look through the eyes of another user, for this thread's file
    // accesses only.
    if (::access("/proc/self", F_OK) != 0 || ::seteuid(65534) != 0)
      GTEST_SKIP() << "cannot change user";
  }
  char path[] = "/tmp/smol_probe_XXXXXX";
  const int fd = ::mkstemp(path);
  ASSERT_GE(fd, 0);
  ::fchmod(fd, 0);
  const KvmStatus status = probe(path);
  ::close(fd);
  ::unlink(path);
  if (::getuid() == 0) ASSERT_EQ(::seteuid(0), 0);
  EXPECT_EQ(status.fitness, KvmFitness::kForbidden) << status.reason;
  EXPECT_NE(status.reason.find("chmod"), std::string::npos) << status.reason;
}

TEST(Probe, JudgesThisHostAndGivesAReason) {
  const KvmStatus status = probe();
  EXPECT_FALSE(status.reason.empty());
  EXPECT_EQ(status.reason.find('\n'), std::string::npos);
  RecordProperty("fitness", std::string(name_of(status.fitness)));
  fmt::print("{}: {} ({} us)\n", name_of(status.fitness), status.reason,
             status.probe_nanoseconds / 1000);
  // Where the caller knows what this host's KVM is.
  if (const char* expected = std::getenv("SMOL_EXPECT_KVM")) {
    EXPECT_EQ(name_of(status.fitness), expected);
  }
  if (status.fitness == KvmFitness::kFit || status.fitness == KvmFitness::kEmulating) {
    EXPECT_GT(status.ring0_speed, 0u);
    EXPECT_GT(status.ring3_speed, 0u);
  }
}

// --- CPUID
// ------------------------------------------------------------------------------------------------------

kvm_cpuid_entry2 leaf(u32 function, u32 eax, u32 ebx, u32 ecx, u32 edx, u32 index = 0,
                      u32 flags = 0) {
  return {.function = function,
          .index = index,
          .flags = flags,
          .eax = eax,
          .ebx = ebx,
          .ecx = ecx,
          .edx = edx,
          .padding = {}};
}

// A host with every feature bit that there is.
CpuidTable rich_host() {
  return {leaf(0, 0xd, 0, 0, 0),
          leaf(1, 0x800f12, 0, ~0u, ~0u),
          leaf(6, 4, 0, 0, 0),
          leaf(7, 2, ~0u, ~0u, ~0u, 0, KVM_CPUID_FLAG_SIGNIFCANT_INDEX),
          leaf(7, ~0u, ~0u, ~0u, ~0u, 1, KVM_CPUID_FLAG_SIGNIFCANT_INDEX),
          leaf(0xd, 0xff, 2696, 2696, 0, 0, KVM_CPUID_FLAG_SIGNIFCANT_INDEX),
          leaf(0xd, 0xf, 2696, 0, 0, 1, KVM_CPUID_FLAG_SIGNIFCANT_INDEX),
          leaf(0xd, 256, 576, 0, 0, 2, KVM_CPUID_FLAG_SIGNIFCANT_INDEX),
          leaf(0xd, 64, 1088, 0, 0, 5, KVM_CPUID_FLAG_SIGNIFCANT_INDEX),
          leaf(0x80000001, 0x800f12, 0, ~0u, ~0u),
          leaf(0x80000008, 0x3030, ~0u, 0, 0)};
}

const kvm_cpuid_entry2& get(const CpuidTable& table, u32 function, u32 index = 0) {
  for (const auto& entry : table)
    if (entry.function == function && entry.index == index) return entry;
  static const kvm_cpuid_entry2 none = {};
  return none;
}

CpuidTable cpuid_of(CpuModel model, u32 id = 0, u32 count = 1) {
  auto table = guest_cpuid({.model = model, .vcpu_id = id, .cpu_count = count}, rich_host());
  EXPECT_TRUE(table) << table.error().chain();
  return table ? *table : CpuidTable{};
}

TEST(Cpuid, LevelsShowTheirInstructionsAndNothingAbove) {
  const auto v1 = cpuid_of(CpuModel::kX86_64V1), v2 = cpuid_of(CpuModel::kX86_64V2),
             v3 = cpuid_of(CpuModel::kX86_64V3);
  constexpr u32 kSse2 = 1u << 26, kPopcnt = 1u << 23, kSse42 = 1u << 20, kAvx = 1u << 28,
                kXsave = 1u << 26;
  constexpr u32 kAes = 1u << 25, kAvx2 = 1u << 5, kAvx512f = 1u << 16;
  EXPECT_EQ(get(v1, 1).edx & kSse2, kSse2);
  EXPECT_EQ(get(v1, 1).ecx & (kPopcnt | kSse42 | kAvx | kXsave | kAes), 0u);
  EXPECT_EQ(get(v2, 1).ecx & (kPopcnt | kSse42), kPopcnt | kSse42);
  EXPECT_EQ(get(v2, 1).ecx & (kAvx | kXsave | kAes), 0u);
  EXPECT_EQ(get(v3, 1).ecx & (kAvx | kXsave | kAes), kAvx | kXsave);
  EXPECT_EQ(get(v2, 7).ebx & kAvx2, 0u);
  EXPECT_EQ(get(v3, 7).ebx & (kAvx2 | kAvx512f), kAvx2);
  EXPECT_EQ(get(v3, 7).eax, 0u);
  EXPECT_EQ(get(v3, 7, 1).eax, 0u);
  EXPECT_EQ(get(v3, 0xd).eax, 7u);
  EXPECT_EQ(get(v3, 0xd, 5).eax, 0u);
  EXPECT_EQ(get(v1, 0xd).eax, 0u);
}

TEST(Cpuid, EveryModelOffersTheMachinesFeatures) {
  for (const CpuModel model : {CpuModel::kHost, CpuModel::kX86_64V1, CpuModel::kX86_64V3}) {
    const auto table = cpuid_of(model);
    constexpr u32 kHypervisor = 1u << 31, kX2apic = 1u << 21, kDeadline = 1u << 24;
    EXPECT_EQ(get(table, 1).ecx & (kHypervisor | kX2apic | kDeadline),
              kHypervisor | kX2apic | kDeadline);
    EXPECT_EQ(get(table, 0x40000000).ebx, 0x4b4d564bu);
    EXPECT_EQ(get(table, 0x40000001).eax & 9, 9u);
  }
}

TEST(Cpuid, TellsEachVcpuWhichItIs) {
  const auto table = cpuid_of(CpuModel::kHost, 2, 4);
  EXPECT_EQ(get(table, 1).ebx >> 24, 2u);
  EXPECT_EQ(get(table, 1).ebx >> 16 & 0xff, 4u);
  EXPECT_EQ(get(table, 0xb, 0).edx, 2u);
  EXPECT_EQ(get(table, 0xb, 1).eax, 2u);  // two bits of core number
  EXPECT_EQ(get(table, 0xb, 1).ebx, 4u);
  EXPECT_EQ(get(table, 0x80000008).ecx, 0x2003u);
}

TEST(Cpuid, NamesWhatTheHostLacks) {
  CpuidTable host = rich_host();
  for (auto& entry : host)
    if (entry.function == 1) entry.ecx &= ~(1u << 12 | 1u << 28);
  const auto table = guest_cpuid({.model = CpuModel::kX86_64V3}, host);
  ASSERT_FALSE(table);
  EXPECT_EQ(table.error().message(),
            "this host cannot give the CPU model x86-64-v3: it lacks fma avx");
  EXPECT_TRUE(guest_cpuid({.model = CpuModel::kX86_64V2}, host));
}

}  // namespace
}  // namespace smol::hypervisor::kvm

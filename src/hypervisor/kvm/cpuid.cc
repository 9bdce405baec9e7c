#include "hypervisor/kvm/cpuid.h"

#include <algorithm>
#include <bit>

namespace smol::hypervisor::kvm {
namespace {

enum Register : u8 { kEax, kEbx, kEcx, kEdx };

// From which level on user space may see a feature. kSystem: a kernel's feature, shown where the
// host has it. kBase: required by every model. kOwn: ours or KVM's to give; shown always, whatever
// the host says.
enum class Level : u8 { kBase, kV2, kV3, kSystem, kOwn };

struct Feature {
  u32 leaf, subleaf;
  Register where;
  u8 bit;
  Level level;
  const char* name;
};

constexpr u32 kExtended = 0x80000000;

// SDM vol. 2A, CPUID; AMD APM vol. 3, appendix E. Bits that are in no line are hidden from a named
// model.
constexpr Feature kFeatures[] = {
    {1, 0, kEdx, 0, Level::kBase, "fpu"},
    {1, 0, kEdx, 1, Level::kSystem, "vme"},
    {1, 0, kEdx, 2, Level::kSystem, "de"},
    {1, 0, kEdx, 3, Level::kBase, "pse"},
    {1, 0, kEdx, 4, Level::kBase, "tsc"},
    {1, 0, kEdx, 5, Level::kBase, "msr"},
    {1, 0, kEdx, 6, Level::kBase, "pae"},
    {1, 0, kEdx, 7, Level::kSystem, "mce"},
    {1, 0, kEdx, 8, Level::kBase, "cx8"},
    {1, 0, kEdx, 9, Level::kBase, "apic"},
    {1, 0, kEdx, 11, Level::kSystem, "sep"},
    {1, 0, kEdx, 12, Level::kSystem, "mtrr"},
    {1, 0, kEdx, 13, Level::kBase, "pge"},
    {1, 0, kEdx, 14, Level::kSystem, "mca"},
    {1, 0, kEdx, 15, Level::kBase, "cmov"},
    {1, 0, kEdx, 16, Level::kSystem, "pat"},
    {1, 0, kEdx, 17, Level::kSystem, "pse36"},
    {1, 0, kEdx, 19, Level::kSystem, "clflush"},
    {1, 0, kEdx, 23, Level::kBase, "mmx"},
    {1, 0, kEdx, 24, Level::kBase, "fxsr"},
    {1, 0, kEdx, 25, Level::kBase, "sse"},
    {1, 0, kEdx, 26, Level::kBase, "sse2"},
    {1, 0, kEdx, 28, Level::kSystem, "htt"},
    {1, 0, kEcx, 0, Level::kV2, "sse3"},
    {1, 0, kEcx, 9, Level::kV2, "ssse3"},
    {1, 0, kEcx, 12, Level::kV3, "fma"},
    {1, 0, kEcx, 13, Level::kV2, "cmpxchg16b"},
    {1, 0, kEcx, 17, Level::kSystem, "pcid"},
    {1, 0, kEcx, 19, Level::kV2, "sse4.1"},
    {1, 0, kEcx, 20, Level::kV2, "sse4.2"},
    {1, 0, kEcx, 21, Level::kOwn, "x2apic"},
    {1, 0, kEcx, 22, Level::kV3, "movbe"},
    {1, 0, kEcx, 23, Level::kV2, "popcnt"},
    {1, 0, kEcx, 24, Level::kOwn, "tsc-deadline"},
    {1, 0, kEcx, 26, Level::kV3, "xsave"},
    {1, 0, kEcx, 28, Level::kV3, "avx"},
    {1, 0, kEcx, 29, Level::kV3, "f16c"},
    {1, 0, kEcx, 31, Level::kOwn, "hypervisor"},
    {6, 0, kEax, 2, Level::kSystem, "arat"},
    {7, 0, kEbx, 0, Level::kSystem, "fsgsbase"},
    {7, 0, kEbx, 1, Level::kSystem, "tsc-adjust"},
    {7, 0, kEbx, 3, Level::kV3, "bmi1"},
    {7, 0, kEbx, 5, Level::kV3, "avx2"},
    {7, 0, kEbx, 7, Level::kSystem, "smep"},
    {7, 0, kEbx, 8, Level::kV3, "bmi2"},
    {7, 0, kEbx, 9, Level::kSystem, "erms"},
    {7, 0, kEbx, 10, Level::kSystem, "invpcid"},
    {7, 0, kEbx, 20, Level::kSystem, "smap"},
    {7, 0, kEcx, 2, Level::kSystem, "umip"},
    {7, 0, kEdx, 4, Level::kSystem, "fsrm"},
    {7, 0, kEdx, 10, Level::kSystem, "md-clear"},
    {7, 0, kEdx, 26, Level::kSystem, "spec-ctrl"},
    {7, 0, kEdx, 27, Level::kSystem, "stibp"},
    {7, 0, kEdx, 28, Level::kSystem, "flush-l1d"},
    {7, 0, kEdx, 29, Level::kSystem, "arch-capabilities"},
    {7, 0, kEdx, 31, Level::kSystem, "ssbd"},
    {kExtended + 1, 0, kEcx, 0, Level::kV2, "lahf"},
    {kExtended + 1, 0, kEcx, 5, Level::kV3, "lzcnt"},
    {kExtended + 1, 0, kEcx, 8, Level::kSystem, "prefetchw"},
    {kExtended + 1, 0, kEdx, 11, Level::kBase, "syscall"},
    {kExtended + 1, 0, kEdx, 20, Level::kBase, "nx"},
    {kExtended + 1, 0, kEdx, 25, Level::kSystem, "fxsr-opt"},
    {kExtended + 1, 0, kEdx, 26, Level::kSystem, "1gb-pages"},
    {kExtended + 1, 0, kEdx, 27, Level::kSystem, "rdtscp"},
    {kExtended + 1, 0, kEdx, 29, Level::kBase, "lm"},
    {kExtended + 7, 0, kEdx, 8, Level::kSystem, "invariant-tsc"},
    {kExtended + 8, 0, kEbx, 0, Level::kSystem, "clzero"},
    {kExtended + 8, 0, kEbx, 2, Level::kSystem, "xsaveerptr"},
    {kExtended + 8, 0, kEbx, 12, Level::kSystem, "ibpb"},
    {kExtended + 8, 0, kEbx, 14, Level::kSystem, "ibrs"},
    {kExtended + 8, 0, kEbx, 15, Level::kSystem, "amd-stibp"},
    {kExtended + 8, 0, kEbx, 24, Level::kSystem, "amd-ssbd"},
};

// AMD repeats these bits of leaf 1's EDX in 0x80000001's EDX.
constexpr u32 kRepeatedEdx = 0x0183f3ff;

u32& reg(kvm_cpuid_entry2& entry, Register where) {
  switch (where) {
    case kEax:
      return entry.eax;
    case kEbx:
      return entry.ebx;
    case kEcx:
      return entry.ecx;
    case kEdx:
      break;
  }
  return entry.edx;
}

kvm_cpuid_entry2* find(CpuidTable& table, u32 leaf, u32 subleaf = 0) {
  for (auto& entry : table)
    if (entry.function == leaf &&
        (!(entry.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) || entry.index == subleaf))
      return &entry;
  return nullptr;
}

bool has(const CpuidTable& table, const Feature& feature) {
  auto* entry = find(const_cast<CpuidTable&>(table), feature.leaf, feature.subleaf);
  return entry != nullptr && (reg(*entry, feature.where) >> feature.bit & 1);
}

bool required(Level level, CpuModel model) {
  switch (level) {
    case Level::kBase:
      return true;
    case Level::kV2:
      return model == CpuModel::kX86_64V2 || model == CpuModel::kX86_64V3;
    case Level::kV3:
      return model == CpuModel::kX86_64V3;
    case Level::kSystem:
    case Level::kOwn:
      break;
  }
  return false;
}

bool is_masked_leaf(const kvm_cpuid_entry2& entry) {
  return std::ranges::any_of(kFeatures, [&](const Feature& f) { return f.leaf == entry.function; });
}

// The registers of a masked leaf that hold numbers and not feature bits (leaf 1's signature,
// address sizes, ...).
bool holds_numbers(u32 leaf, Register where) {
  switch (leaf) {
    case 1:
      return where == kEax || where == kEbx;
    case 7:
      return where == kEax;
    case kExtended + 1:
      return where == kEax || where == kEbx;
    case kExtended + 8:
      return where == kEax || where == kEcx;
    default:
      return false;
  }
}

void mask_leaf(kvm_cpuid_entry2& entry, CpuModel model) {
  const bool subleaf_known = entry.function != 7 || entry.index == 0;
  for (const Register where : {kEax, kEbx, kEcx, kEdx}) {
    if (subleaf_known && holds_numbers(entry.function, where)) continue;
    u32 allowed = 0;
    for (const Feature& feature : kFeatures) {
      if (feature.leaf != entry.function || feature.where != where || !subleaf_known) continue;
      if (feature.level == Level::kSystem || feature.level == Level::kOwn ||
          required(feature.level, model))
        allowed |= 1u << feature.bit;
    }
    if (entry.function == kExtended + 1 && where == kEdx) allowed |= kRepeatedEdx;
    reg(entry, where) &= allowed;
  }
  if (entry.function == 7) entry.eax = 0;  // no further sub-leaves
}

// XSAVE's leaf 0xD: x87, SSE and AVX only; without XSAVE nothing.
void limit_xsave(CpuidTable& table, CpuModel model) {
  constexpr u32 kAvxComponents = 7;
  const bool xsave = model == CpuModel::kX86_64V3;
  std::erase_if(table, [&](const kvm_cpuid_entry2& entry) {
    return entry.function == 0xd && (!xsave || entry.index > 2);
  });
  for (auto& entry : table) {
    if (entry.function != 0xd) continue;
    if (entry.index == 0) {
      entry.eax &= kAvxComponents;
      entry.edx = 0;
      entry.ecx = 576 + 256;  // legacy area, header, AVX (SDM vol. 1, 13.4)
    } else if (entry.index == 1) {
      entry.eax &= 1;  // XSAVEOPT
      entry.ebx = entry.ecx = entry.edx = 0;
    }
  }
}

// Leaves whose features no level has: thermal and performance monitoring, SGX, PT, AMX, SVM, caches
// by QoS, ...
bool hidden_leaf(u32 leaf) {
  switch (leaf) {
    case 5:
    case 0xa:
    case 0xf:
    case 0x10:
    case 0x12:
    case 0x14:
    case 0x1c:
    case 0x1d:
    case 0x1e:
    case 0x24:
    case kExtended + 0xa:
    case kExtended + 0x1b:
    case kExtended + 0x1c:
    case kExtended + 0x1f:
    case kExtended + 0x20:
    case kExtended + 0x21:
    case kExtended + 0x22:
      return true;
    default:
      return false;
  }
}

void limit_to_model(CpuidTable& table, CpuModel model) {
  std::erase_if(table, [](const auto& entry) { return hidden_leaf(entry.function); });
  for (auto& entry : table)
    if (is_masked_leaf(entry)) mask_leaf(entry, model);
  limit_xsave(table, model);
  for (auto& entry : table)
    if (entry.function == 6) entry.ebx = 0;
}

void set_bit(u32& value, u8 bit, bool on) { value = on ? value | 1u << bit : value & ~(1u << bit); }

// What depends on this machine and not on the model.
void offer_machine_features(CpuidTable& table, const CpuidConfig& config) {
  if (auto* leaf = find(table, 1)) {
    set_bit(leaf->ecx, 31, true);
    set_bit(leaf->edx, 9, config.local_apic);
    set_bit(leaf->ecx, 21, config.local_apic);
    set_bit(leaf->ecx, 24, config.local_apic && config.tsc_deadline);
    set_bit(leaf->ecx, 3, false);   // MONITOR: KVM runs it as a no-op
    set_bit(leaf->ecx, 27, false);  // OSXSAVE follows the guest's CR4
    set_bit(leaf->edx, 28, config.cpu_count > 1);
    leaf->ebx =
        (leaf->ebx & 0xffff) | std::min(config.cpu_count, 255u) << 16 | config.vcpu_id << 24;
  }
}

void set_leaf(CpuidTable& table, const kvm_cpuid_entry2& leaf) {
  if (auto* entry = find(table, leaf.function, leaf.index))
    *entry = leaf;
  else
    table.push_back(leaf);
}

// One package of cpu_count cores with one thread each; the x2APIC id is the vCPU's id.
void describe_topology(CpuidTable& table, const CpuidConfig& config) {
  const u32 id_bits = static_cast<u32>(std::bit_width(config.cpu_count - 1));
  std::erase_if(table, [](const auto& e) { return e.function == 0xb || e.function == 0x1f; });
  constexpr u32 kIndexed = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
  // SDM vol. 2A, leaf 0BH: level type in ECX[15:8], 1 = SMT, 2 = core, 0 = end.
  table.push_back({.function = 0xb,
                   .index = 0,
                   .flags = kIndexed,
                   .eax = 0,
                   .ebx = 1,
                   .ecx = 0x100,
                   .edx = config.vcpu_id,
                   .padding = {}});
  table.push_back({.function = 0xb,
                   .index = 1,
                   .flags = kIndexed,
                   .eax = id_bits,
                   .ebx = config.cpu_count,
                   .ecx = 0x201,
                   .edx = config.vcpu_id,
                   .padding = {}});
  table.push_back({.function = 0xb,
                   .index = 2,
                   .flags = kIndexed,
                   .eax = 0,
                   .ebx = 0,
                   .ecx = 2,
                   .edx = config.vcpu_id,
                   .padding = {}});
  if (auto* first = find(table, 0); first != nullptr && first->eax < 0xb) first->eax = 0xb;
  for (auto& entry : table) {
    if (entry.function == 4 &&
        (entry.eax & 0x1f) != 0) {  // cores in the package; threads per cache
      const bool shared = (entry.eax >> 5 & 7) >= 3;
      entry.eax = (entry.eax & 0x3fff) | (shared ? (1u << id_bits) - 1 : 0) << 14 |
                  ((1u << id_bits) - 1) << 26;
    }
    if (entry.function == kExtended + 8)  // AMD: core count and width of the core's id
      entry.ecx = (entry.ecx & ~0xf0ffu) | id_bits << 12 | ((config.cpu_count - 1) & 0xff);
    if (entry.function == kExtended + 0x1d && (entry.eax & 0x1f) != 0) {
      const bool shared = (entry.eax >> 5 & 7) >= 3;
      entry.eax = (entry.eax & 0x3fff) | (shared ? config.cpu_count - 1 : 0) << 14;
    }
    if (entry.function == kExtended + 0x1e) {
      entry.eax = config.vcpu_id;
      entry.ebx = config.vcpu_id & 0xff;  // one thread a core
      entry.ecx = 0;                      // one node
    }
  }
}

// KVM's own leaves (Documentation/virt/kvm/x86/cpuid.rst), in case that the list did not bring
// them.
void offer_paravirtual_leaves(CpuidTable& table) {
  constexpr u32 kSignature = 0x40000000, kFeatureLeaf = 0x40000001;
  if (find(table, kSignature) == nullptr)  // "KVMKVMKVM\0\0\0"
    set_leaf(table, {.function = kSignature,
                     .index = 0,
                     .flags = 0,
                     .eax = kFeatureLeaf,
                     .ebx = 0x4b4d564b,
                     .ecx = 0x564b4d56,
                     .edx = 0x4d,
                     .padding = {}});
  if (find(table, kFeatureLeaf) == nullptr)  // kvmclock, no-io-delay, kvmclock at the new MSRs
    set_leaf(table, {.function = kFeatureLeaf,
                     .index = 0,
                     .flags = 0,
                     .eax = 0xb,
                     .ebx = 0,
                     .ecx = 0,
                     .edx = 0,
                     .padding = {}});
}

}  // namespace

std::vector<std::string> missing_features(CpuModel model, const CpuidTable& supported) {
  std::vector<std::string> missing;
  if (model == CpuModel::kHost) return missing;
  for (const Feature& feature : kFeatures)
    if (required(feature.level, model) && !has(supported, feature)) missing.push_back(feature.name);
  return missing;
}

Result<CpuidTable> guest_cpuid(const CpuidConfig& config, const CpuidTable& supported) {
  if (const auto missing = missing_features(config.model, supported); !missing.empty()) {
    std::string names;
    for (const auto& name : missing) names += " " + name;
    return fail("this host cannot give the CPU model {}: it lacks{}", name_of(config.model), names);
  }
  CpuidTable table = supported;
  if (config.model != CpuModel::kHost) limit_to_model(table, config.model);
  offer_paravirtual_leaves(table);
  offer_machine_features(table, config);
  describe_topology(table, config);
  return table;
}

}  // namespace smol::hypervisor::kvm

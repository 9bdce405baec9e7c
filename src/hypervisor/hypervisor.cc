#include "hypervisor/hypervisor.h"

#include <array>

namespace smol::hypervisor {
namespace {

struct ModelName {
  CpuModel model;
  std::string_view name;
};
constexpr std::array kModels = {
    ModelName{CpuModel::kHost, "host"},
    ModelName{CpuModel::kX86_64V1, "x86-64-v1"},
    ModelName{CpuModel::kX86_64V2, "x86-64-v2"},
    ModelName{CpuModel::kX86_64V3, "x86-64-v3"},
};
constexpr std::array<std::string_view, std::variant_size_v<Exit>> kExitNames = {
    "mmio", "port-io", "halt", "shutdown", "interrupted", "interrupt-window", "debug", "failed"};

}  // namespace

std::string_view name_of(CpuModel model) {
  for (const auto& entry : kModels)
    if (entry.model == model) return entry.name;
  return "?";
}

Result<CpuModel> parse_cpu_model(std::string_view name) {
  for (const auto& entry : kModels)
    if (entry.name == name) return entry.model;
  return fail("unknown CPU model '{}': host, x86-64-v1, x86-64-v2 and x86-64-v3 are known", name);
}

std::string_view exit_name(std::size_t alternative) {
  return alternative < kExitNames.size() ? kExitNames[alternative] : "?";
}

}  // namespace smol::hypervisor

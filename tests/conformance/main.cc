// smol_conformance [--accel soft|kvm]... [GoogleTest's flags]
//
// Without --accel: the software CPU, and KVM where the probe finds it fit. A named one is used
// whatever the probe says.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "hypervisor/kvm/probe.h"
#include "machine.h"

int main(int argc, char** argv) {
  auto& accelerators = smol::conformance::accelerators();
  std::vector<char*> rest;
  for (int i = 0; i < argc; i++) {
    if (std::string_view(argv[i]) != "--accel") {
      rest.push_back(argv[i]);
      continue;
    }
    const std::string name = i + 1 < argc ? argv[++i] : "";
    if (name != "soft" && name != "kvm") {
      fmt::print(stderr, "--accel takes soft or kvm, not '{}'\n", name);
      return 2;
    }
    accelerators.push_back(name);
  }
  if (accelerators.empty()) {
    accelerators.push_back("soft");
    const auto status = smol::hypervisor::kvm::probe();
    fmt::print("kvm is {}: {}\n", name_of(status.fitness), status.reason);
    if (status.fitness == smol::hypervisor::kvm::KvmFitness::kFit) accelerators.push_back("kvm");
  }
  int count = static_cast<int>(rest.size());
  rest.push_back(nullptr);
  testing::InitGoogleTest(&count, rest.data());
  return RUN_ALL_TESTS();
}

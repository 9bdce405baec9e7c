// Every test of every data file through the interpreter.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "data_runner.h"
#include "machine/soft_machine.h"

namespace smol::isa {
namespace {

void run_one(SoftMachine& machine, const DataTest& test) {
  std::memset(machine.data(), 0, kDataSize);
  for (const auto& [at, bytes] : test.memory)
    std::copy(bytes.begin(), bytes.end(), machine.data() + (at - kData));
  machine.set_code(test.code.data(), static_cast<u32>(test.code.size()), 0);
  const Outcome outcome = machine.run(test.in, 100000);
  EXPECT_EQ(failures(test, outcome, machine.data()), "") << test.place << ": " << test.name;
}

TEST(IsaData, AllFiles) {
  auto machine = SoftMachine::create(v2_features());
  size_t files = 0, tests = 0;
  for (const auto& entry : std::filesystem::directory_iterator(SMOL_ISA_DATA)) {
    if (entry.path().extension() != ".isa") continue;
    const auto loaded = load_data_tests(entry.path());
    ASSERT_TRUE(loaded.has_value()) << loaded.error().chain();
    for (const DataTest& test : *loaded) run_one(*machine, test);
    ++files;
    tests += loaded->size();
  }
  EXPECT_GE(files, 5u);
  EXPECT_GE(tests, 60u);
}

TEST(IsaData, BadFilesAreRefused) {
  EXPECT_FALSE(normalize("rax", "12345678123456781").has_value());
  EXPECT_FALSE(normalize("rax", "xyz").has_value());
  EXPECT_FALSE(normalize("eax", "1").has_value());
  EXPECT_FALSE(normalize("flags", "cf,qf").has_value());
  EXPECT_FALSE(load_data_tests("/does/not/exist.isa").has_value());
}

}  // namespace
}  // namespace smol::isa

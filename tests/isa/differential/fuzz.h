// The loop of the differential fuzzer, for the test and for the bench program.
#pragma once

#include <map>
#include <string>

#include "differential/compare.h"
#include "machine/soft_machine.h"

namespace smol::isa {

struct FuzzOptions {
  u64 sequences = 20000;
  u64 seed = 1;
  u64 features = 0;
  bool code32 = false;  // 32-bit compatibility mode instead of 64-bit code
  u32 reports = 10;     // mismatches that are minimised and told in full
  cpu::Opcode only = cpu::Opcode::kInvalid;
};

struct FuzzResult {
  u64 sequences = 0, instructions = 0, skipped = 0, mismatches = 0;
  std::map<unsigned, u64> ends;        // by exception vector
  std::map<std::string, u64> opcodes;  // drawn, by name
  std::map<std::string, u64> guilty;   // mismatches by the opcode that they were minimised to
  std::string report;                  // text of the first mismatches
};

Result<FuzzResult> fuzz(const FuzzOptions& options);

}  // namespace smol::isa

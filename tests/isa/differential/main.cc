// isa_differential --sequences N --seed S [--only OPCODE] [--reports N] [--32]: random user-mode
// sequences on the host's processor and in the interpreter. Prints what was covered and every
// mismatch, narrowed down; exit status 1 if there was one.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "differential/fuzz.h"

using namespace smol;

namespace {

bool parse(int argc, char** argv, isa::FuzzOptions& options) {
  for (int i = 1; i < argc; i += 2) {
    const std::string_view name = argv[i];
    if (name == "--32") {
      options.code32 = true;
      --i;
      continue;
    }
    if (i + 1 >= argc) return false;
    const char* const value = argv[i + 1];
    if (name == "--sequences") {
      options.sequences = std::strtoull(value, nullptr, 0);
    } else if (name == "--seed") {
      options.seed = std::strtoull(value, nullptr, 0);
    } else if (name == "--reports") {
      options.reports = static_cast<u32>(std::strtoul(value, nullptr, 0));
    } else if (name == "--only") {
      for (unsigned o = 1; o < static_cast<unsigned>(cpu::Opcode::kCount); ++o)
        if (std::string_view(cpu::opcode_name(static_cast<cpu::Opcode>(o))) == value)
          options.only = static_cast<cpu::Opcode>(o);
      if (options.only == cpu::Opcode::kInvalid) return false;
    } else {
      return false;
    }
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  isa::FuzzOptions options{.sequences = 1'000'000, .features = isa::v2_features()};
  if (!parse(argc, argv, options)) {
    std::fprintf(stderr,
                 "usage: %s [--sequences N] [--seed S] [--only OPCODE] [--reports N] [--32]\n",
                 argv[0]);
    return 1;
  }
  const auto start = std::chrono::steady_clock::now();
  const auto result = isa::fuzz(options);
  if (!result) {
    std::fprintf(stderr, "%s\n", result.error().chain().c_str());
    return 1;
  }
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::fputs(result->report.c_str(), stdout);
  for (const auto& [name, count] : result->guilty)
    std::printf("mismatches in %s: %llu\n", name.c_str(), static_cast<unsigned long long>(count));
  for (const auto& [vector, count] : result->ends)
    std::printf("ended by exception %u: %llu\n", vector, static_cast<unsigned long long>(count));
  std::printf(
      "%llu sequences, %llu instructions, %zu opcodes, %llu skipped, %llu mismatches, seed %llu, "
      "%.1f s\n",
      static_cast<unsigned long long>(result->sequences),
      static_cast<unsigned long long>(result->instructions), result->opcodes.size(),
      static_cast<unsigned long long>(result->skipped),
      static_cast<unsigned long long>(result->mismatches),
      static_cast<unsigned long long>(options.seed), seconds);
  return result->mismatches == 0 ? 0 : 1;
}

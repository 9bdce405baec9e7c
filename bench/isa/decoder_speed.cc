// How long the decoder takes an instruction: over the machine code of a real program (argument;
// default: this one).
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <vector>

#include "cpu/decoder/instruction.h"

using namespace smol;

int main(int argc, char** argv) {
  const char* path = argc > 1 ? argv[1] : "/proc/self/exe";
  std::ifstream file(path, std::ios::binary);
  const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
  if (bytes.size() < 64) {
    std::fprintf(stderr, "%s: cannot read\n", path);
    return 1;
  }
  // The first executable program header's bytes.
  const u8* elf = reinterpret_cast<const u8*>(bytes.data());
  const u64 headers = base::load<u64>(elf + 32);
  const u16 count = base::load<u16>(elf + 56);
  u64 at = 0, size = 0;
  for (u16 i = 0; i < count; ++i) {
    const u8* h = elf + headers + 56 * i;
    if (base::load<u32>(h) == 1 && (base::load<u32>(h + 4) & 1) != 0)
      at = base::load<u64>(h + 8), size = base::load<u64>(h + 32);
  }
  u64 instructions = 0, invalid = 0;
  const auto start = std::chrono::steady_clock::now();
  const int rounds = static_cast<int>(1 + 200'000'000 / (size + 1) / 8);
  for (int round = 0; round < rounds; ++round) {
    for (u64 offset = 0; offset < size;) {
      cpu::Instruction i;
      const auto status = cpu::decode(elf + at + offset, static_cast<u32>(size - offset), {}, i);
      if (status != cpu::DecodeStatus::kOk || i.opcode == cpu::Opcode::kInvalid) ++invalid;
      offset += status == cpu::DecodeStatus::kOk && i.length != 0 ? i.length : 1;
      ++instructions;
    }
  }
  const double ns =
      std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - start).count();
  std::printf("%s: %llu instructions (%llu invalid), %.1f ns each\n", path,
              static_cast<unsigned long long>(instructions),
              static_cast<unsigned long long>(invalid), ns / static_cast<double>(instructions));
  return 0;
}

// Every opcode byte of every map with every ModRM byte, under the prefixes that change meaning, in
// the three code sizes; then random bytes. What the two decoders tell apart on purpose is in
// is_known_difference (oracle.cc), each with its reason.
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <vector>

#include "oracle.h"

namespace smol::isa {
namespace {

constexpr cpu::CodeSize kSizes[] = {cpu::CodeSize::k16, cpu::CodeSize::k32, cpu::CodeSize::k64};

struct Tally {
  u64 compared = 0;
  std::map<std::string, std::pair<u64, std::string>> differences;  // by kind: count, an example

  void check(const std::vector<u8>& start, cpu::CodeSize size) {
    u8 bytes[15];
    for (unsigned i = 0; i < 15; ++i)
      bytes[i] = i < start.size() ? start[i] : static_cast<u8>(0x11 * i + 1);
    ++compared;
    const std::string difference = compare_with_oracle(bytes, size);
    if (difference.empty()) return;
    const size_t from = difference.find("ours '") + 6;
    const std::string kind = difference.substr(from, difference.find_first_of(" '", from) - from);
    auto& entry = differences[kind];
    if (entry.first++ == 0) entry.second = difference;
  }

  void expect_none() const {
    for (const auto& [kind, entry] : differences)
      ADD_FAILURE() << entry.first << " like " << entry.second;
  }
};

TEST(DecoderOracle, EveryOpcodeAndModrm) {
  const std::vector<std::vector<u8>> prefixes = {
      {},     {0x66}, {0xf3}, {0xf2}, {0x67},       {0xf0},       {0x66, 0xf2},
      {0x65}, {0x48}, {0x41}, {0x44}, {0x66, 0x48}, {0xf3, 0x4f}, {0xf2, 0x48}};
  const std::vector<std::vector<u8>> maps = {{}, {0x0f}, {0x0f, 0x38}, {0x0f, 0x3a}};
  Tally tally;
  for (cpu::CodeSize size : kSizes) {
    for (const auto& prefix : prefixes) {
      for (const auto& map : maps) {
        for (unsigned opcode = 0; opcode < 256; ++opcode) {
          for (unsigned modrm = 0; modrm < 256; ++modrm) {
            std::vector<u8> bytes = prefix;
            bytes.insert(bytes.end(), map.begin(), map.end());
            bytes.push_back(static_cast<u8>(opcode));
            bytes.push_back(static_cast<u8>(modrm));
            tally.check(bytes, size);
          }
        }
      }
    }
  }
  tally.expect_none();
  EXPECT_GT(tally.compared, 10'000'000u);
}

TEST(DecoderOracle, Vex) {
  Tally tally;
  for (cpu::CodeSize size : kSizes) {
    for (unsigned p1 : {0xe2, 0xe3, 0x62, 0xc2, 0x42, 0x03, 0xa2})
      for (unsigned p2 = 0; p2 < 256; ++p2)
        for (unsigned opcode = 0xf0; opcode < 0x100; ++opcode)
          for (unsigned modrm : {0x00, 0x05, 0x0c, 0x4d, 0x93, 0xc1, 0xc8, 0xd3, 0xda, 0xff})
            tally.check({0xc4, static_cast<u8>(p1), static_cast<u8>(p2), static_cast<u8>(opcode),
                         static_cast<u8>(modrm)},
                        size);
  }
  tally.expect_none();
}

TEST(DecoderOracle, RandomBytes) {
  std::mt19937_64 random(7);
  Tally tally;
  for (int n = 0; n < 3'000'000; ++n) {
    std::vector<u8> bytes(15);
    for (u8& b : bytes) b = static_cast<u8>(random());
    if (n % 3 == 0) bytes[random() % 3] = 0x0f;
    if (n % 5 == 0) bytes[0] = static_cast<u8>(0x40 | (random() & 15));
    tally.check(bytes, kSizes[n % 3]);
  }
  tally.expect_none();
}

}  // namespace
}  // namespace smol::isa

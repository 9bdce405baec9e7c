// Every host must give the same: thousands of MMX, SSE and x87 instructions from seeded states,
// digested. The digests were taken on an x86-64 host, where the handlers run the host's own
// instructions (and other tests compare those with the processor); elsewhere the same states go
// through the portable forms. Left out: approximations (RCP, RSQRT), transcendentals and partial
// remainders, which differ between processors.
#include "cpu/interp/instruction_runner_test.h"

namespace smol::cpu {
namespace {

using test::InstructionRunner;
using test::MachineState;

struct Group {
  const char* name;
  std::vector<u8> prefix;  // bytes before the opcode
  std::vector<u8> opcodes;
  bool immediate;
  u64 digest;
};

class FpDigest : public ::testing::Test {
 protected:
  u64 lane() {
    static constexpr u64 edges[] = {0,
                                    u64{1} << 63,
                                    0x3ff0000000000000,
                                    0x7ff0000000000001,
                                    0xfff8000000000000,
                                    1,
                                    0x3f8000007f800001,
                                    0x80000000ff800000,
                                    0x0010000000000000,
                                    0x7fefffffffffffff,
                                    0x41e0000000000000,
                                    0x4f000000cf000000};
    const u64 r = random_();
    switch (r % 4) {
      case 0:
        return random_();
      case 1:
        return edges[r / 4 % 12];
      case 2:
        return (random_() & 0x807fffff807fffff) | (120 + r / 4 % 16) << 23 |
               (120 + r / 64 % 16) << 55;
      default:
        return (random_() & 0x800fffffffffffff) | (1010 + r / 4 % 60) << 52;
    }
  }
  void randomize() {
    state_ = {};
    base::store<u16>(state_.image, static_cast<u16>(0x7f | (random_() & 3) << 10 |
                                                    "\0\2\3\3"[random_() % 4] << 8));
    base::store<u16>(state_.image + 2, static_cast<u16>((random_() & 7) << 11));
    state_.image[4] = random_() % 4 ? 0xff : static_cast<u8>(random_());
    base::store<u32>(state_.image + 24,
                     0x1f80 | static_cast<u32>(random_() & 0x6000) | (random_() % 4 ? 0 : 0x8040));
    for (u32 i = 0; i < 8; ++i) {
      const u64 r = random_();
      base::store<u64>(state_.image + 32 + 16 * i, lane() | (r % 8 ? u64{1} << 63 : 0));
      base::store<u64>(
          state_.image + 40 + 16 * i,
          (r >> 8 & 0x8000) | (r % 16 ? 0x3fff - 30 + r / 16 % 60 : 0x7fff * (r / 16 % 2)));
    }
    for (u32 i = 0; i < 16; ++i) {
      base::store<u64>(state_.image + 160 + 16 * i, lane());
      base::store<u64>(state_.image + 168 + 16 * i, lane());
    }
    for (u32 i = 0; i < 32; i += 8) base::store<u64>(state_.memory + i, lane());
    state_.rax = random_();
    state_.rdx = random_() % 40;
    state_.rsi = reinterpret_cast<u64>(state_.memory);
  }
  void mix(u64 value) {
    hash_ = (hash_ ^ value) * 0x9e3779b97f4a7c15;
    hash_ ^= hash_ >> 31;
  }
  u64 digest(const Group& group) {
    hash_ = 1;
    for (const u8 opcode : group.opcodes) {
      for (u32 i = 0; i < 60; ++i) {
        randomize();
        std::vector<u8> bytes = group.prefix;
        bytes.push_back(opcode);
        if (group.prefix.empty() && (opcode < 0xd8 || opcode > 0xdf)) ADD_FAILURE();
        bytes.push_back(group.prefix.empty() ? x87_modrm(opcode, i) : i % 2 ? 0x06 : 0xc1);
        if (group.immediate) bytes.push_back(static_cast<u8>(random_()));
        EXPECT_TRUE(runner_.run_ours(bytes, state_))
            << runner_.name() << " raised " << int{runner_.cpu().fault.vector};
        for (u32 k = 32; k < 416; k += 8) mix(base::load<u64>(state_.image + k));
        mix(base::load<u32>(state_.image));  // FCW, FSW
        mix(state_.image[4]);
        mix(base::load<u32>(state_.image + 24));
        mix(base::load<u64>(state_.memory));
        mix(base::load<u64>(state_.memory + 8));
        mix(state_.rax);
        mix(state_.rcx);
        mix(state_.rflags & kArithmeticFlags);
      }
    }
    return hash_;
  }
  // Loads, stores, arithmetic, compares; memory and register forms in turn.
  static u8 x87_modrm(u8 opcode, u32 i) {
    static constexpr u8 d9[] = {0x06, 0x16, 0x1e, 0xc1, 0xc9, 0xe0, 0xe1, 0xe4,
                                0xe5, 0xe8, 0xeb, 0xfa, 0xfc, 0xfd, 0xf4, 0xf6};
    static constexpr u8 da[] = {0x06, 0x0e, 0x16, 0x1e, 0x26, 0x36, 0xc1, 0xd1, 0xe9};
    static constexpr u8 db[] = {0x06, 0x0e, 0x16, 0x1e, 0x2e, 0x3e, 0xc1, 0xe9, 0xf1};
    static constexpr u8 dd[] = {0x06, 0x0e, 0x16, 0x1e, 0xc1, 0xd1, 0xd9, 0xe1, 0xe9};
    static constexpr u8 df[] = {0x06, 0x0e, 0x16, 0x1e, 0x26, 0x2e, 0x36, 0x3e, 0xe9, 0xf1};
    switch (opcode) {
      case 0xd9:
        return d9[i % sizeof(d9)];
      case 0xda:
        return da[i % sizeof(da)];
      case 0xdb:
        return db[i % sizeof(db)];
      case 0xdd:
        return dd[i % sizeof(dd)];
      case 0xdf:
        return df[i % sizeof(df)];
      default:
        return static_cast<u8>((i % 2 ? 0x06 : 0xc1) |
                               (opcode == 0xde && i % 2 == 0 && i / 2 % 8 == 3 ? 0 : i / 2 % 8)
                                   << 3);
    }
  }

  std::mt19937_64 random_{2025};
  u64 hash_ = 1;
  InstructionRunner runner_;
  MachineState state_ = {};
};

TEST_F(FpDigest, SameOnEveryHost) {
  const std::vector<u8> float_packed = {0x14, 0x15, 0x51, 0x54, 0x55, 0x56, 0x57,
                                        0x58, 0x59, 0x5c, 0x5d, 0x5e, 0x5f};
  const std::vector<u8> float_scalar = {0x51, 0x58, 0x59, 0x5a, 0x5c, 0x5d,
                                        0x5e, 0x5f, 0x2a, 0x2c, 0x2d};
  const std::vector<u8> integers = {0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69,
                                    0x6a, 0x6b, 0x74, 0x75, 0x76, 0xd1, 0xd2, 0xd3, 0xd4, 0xd5,
                                    0xd8, 0xda, 0xdc, 0xde, 0xe0, 0xe1, 0xe2, 0xe3, 0xe4, 0xe5,
                                    0xe8, 0xea, 0xec, 0xee, 0xf1, 0xf4, 0xf5, 0xf6, 0xfc};
  const Group groups[] = {
      {"ps", {0x0f}, float_packed, false, 18308783291156420285u},
      {"pd", {0x66, 0x0f}, float_packed, false, 12731722082320816236u},
      {"ss", {0xf3, 0x0f}, float_scalar, false, 13145318542649790297u},
      {"sd", {0xf2, 0x0f}, float_scalar, false, 3381036531525586211u},
      {"compare", {0x0f}, {0x2e, 0x2f, 0x5a, 0x5b}, false, 16978473634160030237u},
      {"convert", {0x66, 0x0f}, {0x2e, 0x2f, 0x5a, 0x5b, 0xe6}, false, 16868295079714390253u},
      {"cmpps", {0x0f}, {0xc2, 0xc6}, true, 650629392797853580u},
      {"cmpsd", {0xf2, 0x0f}, {0xc2, 0x70}, true, 14411846739380560723u},
      {"horizontal", {0x66, 0x0f}, {0x7c, 0x7d, 0xd0}, false, 6627406478809296450u},
      {"mmx", {0x0f}, integers, false, 1799838960629300545u},
      {"sse2", {0x66, 0x0f}, integers, false, 7189541517739187084u},
      {"shuffle", {0x66, 0x0f}, {0x70, 0xc4, 0xc6}, true, 12373978607142429884u},
      {"ssse3",
       {0x66, 0x0f, 0x38},
       {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0x1c, 0x1d, 0x1e},
       false,
       10262060863431754536u},
      {"sse4",
       {0x66, 0x0f, 0x38},
       {0x10, 0x14, 0x15, 0x17, 0x20, 0x24, 0x28, 0x29, 0x2b, 0x30, 0x35, 0x37, 0x38, 0x3b, 0x3f,
        0x40, 0x41},
       false,
       2574941655720694428u},
      {"sse4 imm",
       {0x66, 0x0f, 0x3a},
       {0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f, 0x14, 0x16, 0x20, 0x21, 0x22, 0x40, 0x41,
        0x42},
       true,
       6048139610440401664u},
      {"strings", {0x66, 0x0f, 0x3a}, {0x60, 0x61, 0x62, 0x63}, true, 9798987708462645800u},
      {"aes", {0x66, 0x0f, 0x38}, {0xdb, 0xdc, 0xdd, 0xde, 0xdf}, false, 10793827317377266100u},
      {"keys and clmul", {0x66, 0x0f, 0x3a}, {0xdf, 0x44}, true, 17047129117544785001u},
      {"x87", {}, {0xd8, 0xd9, 0xda, 0xdb, 0xdc, 0xdd, 0xde, 0xdf}, false, 18042952275403557606u},
  };
  for (const Group& group : groups) {
    random_.seed(2025);
    EXPECT_EQ(digest(group), group.digest) << group.name;
  }
}

}  // namespace
}  // namespace smol::cpu

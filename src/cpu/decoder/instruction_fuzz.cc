// Hostile bytes at the very end of a readable page: a read past what is available faults. The
// result's invariants hold for whatever was decoded.
#include <sys/mman.h>

#include "base/check.h"
#include "cpu/decoder/instruction.h"

using namespace smol;

namespace {
u8* page_before_hole() {
  void* two =
      mmap(nullptr, 2 * kPageSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(two != MAP_FAILED);
  CHECK(mprotect(static_cast<u8*>(two) + kPageSize, kPageSize, PROT_NONE) == 0);
  return static_cast<u8*>(two);
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, size_t size) {
  static u8* const page = page_before_hole();
  if (size < 2) return 0;
  cpu::DecodeMode mode;
  mode.code_size = static_cast<cpu::CodeSize>(data[0] % 3);
  mode.real_mode = mode.code_size == cpu::CodeSize::k16 && (data[0] & 4) != 0;
  mode.features = (data[0] & 8) != 0 ? ~u64{0} : u64{data[1]} << (data[0] >> 4);
  const size_t count = size - 1 < kPageSize ? size - 1 : kPageSize;
  u8* code = page + kPageSize - count;
  std::memcpy(code, data + 1, count);
  for (size_t at = 0; at < count;) {
    const u32 available = static_cast<u32>(count - at);
    cpu::Instruction i;
    const cpu::DecodeStatus status = cpu::decode(code + at, available, mode, i);
    if (status != cpu::DecodeStatus::kOk) {
      CHECK(status == cpu::DecodeStatus::kTooLong ? available >= 15 : available < 15);
      ++at;
      continue;
    }
    CHECK(i.length >= 1 && i.length <= 15 && i.length <= available);
    CHECK(i.opcode < cpu::Opcode::kCount && i.operand_count <= 4);
    const cpu::FlagEffects e = cpu::flag_effects(i);
    CHECK((e.writes_always & ~e.writes_maybe) == 0 && (e.undefined & ~e.writes_maybe) == 0);
    at += i.length;
  }
  return 0;
}

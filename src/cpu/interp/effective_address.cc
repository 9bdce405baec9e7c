// Effective addresses outside the common case: address-size prefixes, FS and GS, and the segment
// checks of everything that is not 64-bit code (SDM vol. 3, 5.3 and 5.6).
#include "cpu/interp/handler.h"

namespace smol::cpu {
namespace {

// Type bits of code and data descriptors.
constexpr u32 kTypeCode = 8, kTypeReadWrite = 2, kTypeExpandDown = 4;

bool within_limit(const SegmentRegister& segment, u64 offset, u32 size) {
  const u64 last = offset + size - 1;
  if ((segment.access & (kTypeCode | kTypeExpandDown)) == kTypeExpandDown) {
    const u64 top = (segment.access & kAccessBig) ? 0xffffffff : 0xffff;
    return offset > segment.limit && last <= top;
  }
  return last <= segment.limit;
}

bool allowed(const Cpu* cpu, const SegmentRegister& segment, bool write) {
  if (!cpu->protected_mode() || (cpu->flags & kFlagVm)) return true;
  if (segment.access & kAccessUnusable) return false;
  if (segment.access & kTypeCode) return !write && (segment.access & kTypeReadWrite) != 0;
  return !write || (segment.access & kTypeReadWrite) != 0;
}

}  // namespace

bool linear_address(Cpu* cpu, const Op* op, u8 index, u64 offset, u32 size, bool write,
                    u64& address) {
  if (op->flags & kOpCode64) {
    address = offset + cpu->segment_base[index];
    return true;
  }
  const SegmentRegister& segment = cpu->segments[index];
  if (!allowed(cpu, segment, write) || !within_limit(segment, offset, size == 0 ? 1 : size))
    return raise(*cpu, index == kSs ? kStackFault : kGeneralProtection, 0);
  address = (offset + segment.base) & 0xffffffff;
  return true;
}

bool ea_general(Cpu* cpu, const Op* op, u32 size, bool write, u64& address) {
  u64 offset = ea_flat(cpu, op);
  if (op->flags & kOpAddress32) offset &= 0xffffffff;
  if (op->flags & kOpAddress16) offset &= 0xffff;
  return linear_address(cpu, op, op->segment, offset, size, write, address);
}

}  // namespace smol::cpu

#include "cpu/interp/stack.h"

namespace smol::cpu {

Stack stack_on(const SegmentRegister& segment, u64 pointer) {
  Stack stack{.segment = segment, .pointer = pointer};
  stack.mask = (segment.access & kAccessBig) != 0 ? 0xffffffff : 0xffff;
  return stack;
}

Stack current_stack(const Cpu& cpu) {
  Stack stack = stack_on(cpu.segments[2], cpu.gpr[kRsp]);
  if (cpu.code64()) {
    stack.flat = true;
    stack.mask = ~u64{0};
  }
  stack.supervisor = false;
  return stack;
}

void set_stack_pointer(Cpu& cpu, const Stack& stack) {
  u64& rsp = cpu.gpr[kRsp];
  rsp = stack.mask == 0xffff ? (rsp & ~stack.mask) | (stack.pointer & stack.mask)
                             : stack.pointer & stack.mask;
}

namespace {
bool stack_address(Cpu& cpu, const Stack& stack, u64 offset, u32 size, u64& address) {
  if (stack.flat) {
    address = offset;
    if (!is_canonical(offset) || !is_canonical(offset + size - 1))
      return raise(cpu, kStackFault, stack.error);
    return true;
  }
  if (!within_segment(stack.segment, offset, size)) return raise(cpu, kStackFault, stack.error);
  address = (stack.segment.base + offset) & 0xffffffff;
  return true;
}

bool store(Cpu& cpu, const Stack& stack, u64 address, const void* from, u32 size) {
  return stack.supervisor ? write_system(&cpu, address, from, size)
                          : write_slow(&cpu, address, from, size);
}
}  // namespace

bool Frame::write(Cpu& cpu, Stack& stack) const {
  u8 bytes[kCapacity * 8];
  u64 pointer = stack.pointer & stack.mask, lowest = 0;
  bool wraps = false;
  for (u32 i = 0; i < count_; ++i) {
    const u64 next = (pointer - width_) & stack.mask;
    wraps = wraps || next > pointer;
    pointer = next;
    if (!stack_address(cpu, stack, pointer, width_, lowest)) return false;
    __builtin_memcpy(bytes + (count_ - 1 - i) * width_, &values_[i], width_);
  }
  if (!wraps) {
    // One access: it is checked whole before the first byte is stored.
    if (count_ != 0 && !store(cpu, stack, lowest, bytes, count_ * width_)) return false;
  } else {
    // A 16-bit stack that wraps round: piece by piece. A page fault in between leaves stores
    // behind, below the pointer.
    u64 at = stack.pointer & stack.mask;
    for (u32 i = 0; i < count_; ++i) {
      at = (at - width_) & stack.mask;
      u64 address = 0;
      if (!stack_address(cpu, stack, at, width_, address)) return false;
      if (!store(cpu, stack, address, &values_[i], width_)) return false;
    }
  }
  stack.pointer = (stack.pointer & ~stack.mask) | pointer;
  return true;
}

bool peek_stack(Cpu& cpu, const Stack& stack, u32 width, u32 n, u64& value, u64 skip) {
  u64 address = 0;
  value = 0;
  const u64 offset = (stack.pointer + static_cast<u64>(n) * width + skip) & stack.mask;
  return stack_address(cpu, stack, offset, width, address) &&
         read_slow(&cpu, address, &value, width);
}

bool inner_stack(Cpu& cpu, u8 ring, u32 ext, u16& selector, u64& pointer) {
  const u32 error = selector_error(cpu.tr.selector) | ext;
  const bool wide = (cpu.tr.access & 8) != 0;  // 32- or 64-bit TSS
  u8 bytes[8] = {};
  selector = ring;
  pointer = 0;
  if (cpu.long_mode()) {
    const u32 offset = 4 + 8u * ring;
    if (offset + 7 > cpu.tr.limit) return raise(cpu, kInvalidTss, error);
    return read_system(&cpu, cpu.tr.base + offset, &pointer, 8);
  }
  const u32 offset = wide ? 4 + 8u * ring : 2 + 4u * ring;
  const u32 size = wide ? 6 : 4;
  if (offset + size - 1 > cpu.tr.limit) return raise(cpu, kInvalidTss, error);
  if (!read_system(&cpu, cpu.tr.base + offset, bytes, size)) return false;
  pointer = wide ? base::load<u32>(bytes) : base::load<u16>(bytes);
  selector = base::load<u16>(bytes + size - 2);
  return true;
}

bool interrupt_stack(Cpu& cpu, u32 index, u32 ext, u64& pointer) {
  const u32 offset = 36 + 8 * (index - 1);
  if (offset + 7 > cpu.tr.limit)
    return raise(cpu, kInvalidTss, selector_error(cpu.tr.selector) | ext);
  return read_system(&cpu, cpu.tr.base + offset, &pointer, 8);
}

bool switch_stack(Cpu& cpu, u8 ring, u32 ext, Stack& out) {
  u16 selector = 0;
  u64 pointer = 0;
  if (!inner_stack(cpu, ring, ext, selector, pointer)) return false;
  if (cpu.long_mode()) {
    out =
        Stack{.segment = null_segment(ring, ring), .pointer = pointer, .flat = true, .error = ext};
    return true;
  }
  Descriptor descriptor;
  if (!check_stack_descriptor(cpu, selector, ring, kInvalidTss, ext, descriptor)) return false;
  out = stack_on(make_segment(descriptor, selector), pointer);
  out.error = selector_error(selector) | ext;
  return true;
}

}  // namespace smol::cpu

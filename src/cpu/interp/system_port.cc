// Port I/O: rights, the I/O log, IN, OUT, INS, OUTS (SDM vol. 1 chapter 19; vol. 2). String forms
// do one element at a time; a repeated one keeps its progress in the registers, so it can stop and
// start again at any element.
#include "cpu/interp/system_handlers.h"
#include "cpu/state/flags.h"

namespace smol::cpu {

bool check_port(Cpu& cpu, u16 port, u32 size) {
  if (!cpu.protected_mode() || cpu.cpl <= iopl(cpu)) return true;
  const u32 type = cpu.tr.access & 0x1f;
  if ((cpu.tr.access & kAccessUnusable) != 0 || (type != 9 && type != 11) || cpu.tr.limit < 103)
    return raise_gp0(cpu);
  u16 map = 0, bits = 0;
  if (!read_system(&cpu, cpu.tr.base + 102, &map, 2)) return false;
  // Two bytes are always read, so that an access may straddle a byte of the map.
  const u32 offset = map + port / 8u;
  if (offset + 1 > cpu.tr.limit) return raise_gp0(cpu);
  if (!read_system(&cpu, cpu.tr.base + offset, &bits, 2)) return false;
  const u32 mask = ((1u << size) - 1) << (port & 7);
  return (bits & mask) == 0 || raise_gp0(cpu);
}

namespace {
// One access through the log; see IoLog.
bool port_access(Cpu& cpu, u16 port, u32 size, bool write, u32& value) {
  IoLog& io = cpu.io;
  if (io.replayed < io.done_count) {
    const IoAccess& done = io.done[io.replayed++];
    if (!write) value = static_cast<u32>(truncated(done.value, size));
    return true;
  }
  io.pending = {.address = port,
                .value = write ? truncated(value, size) : 0,
                .size = static_cast<u8>(size),
                .write = write,
                .port = true};
  cpu.stop = Stop::kIo;
  return false;
}
}  // namespace

bool port_read(Cpu& cpu, u16 port, u32 size, u32& value) {
  return port_access(cpu, port, size, false, value);
}
bool port_write(Cpu& cpu, u16 port, u32 size, u32 value) {
  return port_access(cpu, port, size, true, value);
}

namespace {

u16 port_of(const Cpu& cpu, const Op& op) {
  return static_cast<u16>((op.aux & kAuxImmediate) != 0 ? op.immediate & 0xff : cpu.gpr[kRdx]);
}

bool do_in(Cpu& cpu, const Op& op) {
  const u32 size = op.aux & kAuxSize;
  const u16 port = port_of(cpu, op);
  u32 value = 0;
  if (!check_port(cpu, port, size) || !port_read(cpu, port, size, value)) return false;
  set_gpr(cpu, kRax, size, value);
  return true;
}

bool do_out(Cpu& cpu, const Op& op) {
  const u32 size = op.aux & kAuxSize;
  const u16 port = port_of(cpu, op);
  return check_port(cpu, port, size) &&
         port_write(cpu, port, size, static_cast<u32>(cpu.gpr[kRax]));
}

// The address size's view of a register, and its advance.
u64 address_mask(const Op& op) {
  return (op.flags & kOpAddress16) != 0   ? 0xffff
         : (op.flags & kOpAddress32) != 0 ? 0xffffffff
                                          : ~u64{0};
}
void set_masked(u64& reg, u64 mask, u64 value) {
  reg = mask == 0xffff ? (reg & ~mask) | (value & mask) : value & mask;
}

template <bool kInput>
bool string_element(Cpu& cpu, const Op& op) {
  const u32 size = op.aux & kAuxSize;
  const u64 mask = address_mask(op);
  const u16 port = static_cast<u16>(cpu.gpr[kRdx]);
  u64& pointer = cpu.gpr[kInput ? kRdi : kRsi];
  u64 address = 0;
  u32 value = 0;
  if (!check_port(cpu, port, size)) return false;
  if (!data_address(cpu, kInput ? 0 : op.segment, pointer & mask, size, kInput, address))
    return false;
  if constexpr (kInput) {
    if (!probe_write(&cpu, address, size)) return false;
    if (!port_read(cpu, port, size, value)) return false;
    if (!write_slow(&cpu, address, &value, size)) return false;
  } else {
    if (!read_slow(&cpu, address, &value, size)) return false;
    if (!port_write(cpu, port, size, value)) return false;
  }
  set_masked(pointer, mask, (cpu.flags & kFlagDf) != 0 ? pointer - size : pointer + size);
  return true;
}

template <bool kInput>
bool do_string(Cpu& cpu, const Op& op) {
  if ((op.aux & kAuxRepeat) == 0) return string_element<kInput>(cpu, op);
  const u64 mask = address_mask(op);
  while ((cpu.gpr[kRcx] & mask) != 0) {
    if (!string_element<kInput>(cpu, op)) return false;
    set_masked(cpu.gpr[kRcx], mask, cpu.gpr[kRcx] - 1);
    // This element is done for good: what the outside answered for it must not be replayed to the
    // next one.
    cpu.io.done_count = cpu.io.replayed = 0;
  }
  return true;
}

void prepare_string(const Instruction& instruction, Lowered& out) {
  out.op.segment = instruction.memory.segment;
  if (instruction.repeat != RepeatPrefix::kNone) out.op.aux |= kAuxRepeat;
  out.op.flags = static_cast<u8>(out.op.flags & ~(kOpAddress32 | kOpAddress16));
  if (instruction.address_size == 4) out.op.flags |= kOpAddress32;
  if (instruction.address_size == 2) out.op.flags |= kOpAddress16;
}

}  // namespace

bool lower_ports(const Instruction& instruction, Lowered& out) {
  const Operand& port = instruction.operands[instruction.opcode == Opcode::kIn ? 1 : 0];
  if (instruction.opcode == Opcode::kIn || instruction.opcode == Opcode::kOut) {
    const Operand& data = instruction.operands[instruction.opcode == Opcode::kIn ? 0 : 1];
    out.op.aux =
        static_cast<u8>(data.size | (port.kind == OperandKind::kImmediate ? kAuxImmediate : 0));
  }
  // Ports are the outside: interrupts may have come up behind the access, so the block ends.
  switch (instruction.opcode) {
    case Opcode::kIn:
      return lower_end<do_in>(out);
    case Opcode::kOut:
      return lower_end<do_out>(out);
    case Opcode::kIns:
      prepare_string(instruction, out);
      return lower_end<do_string<true>>(out);
    case Opcode::kOuts:
      prepare_string(instruction, out);
      return lower_end<do_string<false>>(out);
    default:
      return false;
  }
}

}  // namespace smol::cpu

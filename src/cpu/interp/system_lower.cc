// lower_system: asks the families in turn. Decoding happens once per instruction of a block, so the
// order costs nothing.
#include "cpu/interp/system_handlers.h"

namespace smol::cpu {

bool read_source16(Cpu& cpu, const Op& op, u8 reg, u16& value) {
  if ((op.aux & kAuxMemory) == 0) {
    value = static_cast<u16>(cpu.gpr[reg]);
    return true;
  }
  u64 address = 0;
  return ea_general(&cpu, &op, 2, false, address) && read_memory(&cpu, address, value);
}

bool lower_system(const Instruction& instruction, const BlockMode& mode, bool flat, Lowered& out) {
  static_cast<void>(mode);
  static_cast<void>(flat);
  out.op.aux = static_cast<u8>((instruction.operand_size & kAuxSize) |
                               (instruction.has_modrm_memory ? kAuxMemory : 0));
  return lower_events(instruction, out) || lower_far(instruction, out) ||
         lower_fast_calls(instruction, out) || lower_segments(instruction, out) ||
         lower_tables(instruction, out) || lower_control(instruction, out) ||
         lower_misc(instruction, out) || lower_ports(instruction, out);
}

}  // namespace smol::cpu

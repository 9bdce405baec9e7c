// RETF and IRET share their checks (SDM vol. 2, RET and IRET/IRETD/IRETQ).
#pragma once

#include "base/bytes.h"
#include "cpu/state/cpu.h"

namespace smol::cpu {

// width: 2, 4 or 8 bytes a stack slot. Both set cpu.rip. False: exception recorded, nothing
// changed.
bool far_return(Cpu& cpu, u32 width, u32 release);
bool interrupt_return(Cpu& cpu, u32 width);

}  // namespace smol::cpu

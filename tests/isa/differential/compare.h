// What of two outcomes must be equal. Differences that the architecture allows are masked here,
// each with its reason.
#pragma once

#include <string>

#include "differential/generator.h"
#include "differential/native.h"

namespace smol::isa {

// Empty when equal; else one line a difference, "native" first. data: the interpreter's data pages.
std::string compare(const Sequence& sequence, const NativeAnswer& native, const Outcome& soft,
                    const u8* data);

// The sequence as bytes and opcode names, a line a step.
std::string disassemble(const Sequence& sequence);
std::string describe(const UserState& state);

}  // namespace smol::isa

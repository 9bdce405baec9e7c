// The decoder against Zydis: one instruction's bytes through both, and what differs as text.
#pragma once

#include <string>

#include "cpu/decoder/instruction.h"

namespace smol::isa {

// Empty when both agree. bytes: 15 readable ones.
std::string compare_with_oracle(const u8* bytes, cpu::CodeSize size);

// "48 8b 05 ..."
std::string hex(const u8* bytes, unsigned count);

}  // namespace smol::isa

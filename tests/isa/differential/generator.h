// Random sequences of user-mode instructions, made from the decoder's own table: every row that the
// feature set has and that `excluded` (generator.cc) does not name with a reason is drawn with
// equal weight, with random prefixes, registers, addressing forms and immediates. Branches go
// forward to instruction starts, so a sequence ends.
#pragma once

#include <vector>

#include "cpu/decoder/table.h"
#include "differential/values.h"
#include "machine/state.h"

namespace smol::isa {

struct Step {
  u8 bytes[15];
  u8 length = 0;
  cpu::Instruction instruction;
  u16 undefined_before = 0;  // flags that are undefined when it starts (1.. as RFLAGS bits)
  int target = -1;           // of a relative branch: step number
  u8 branch_size = 0;        // bytes of its displacement, the instruction's last ones
  u8 rip_at = 0;             // place of a RIP-relative displacement
  u64 rip_target = 0;        // and the address that it is to reach
};

struct Sequence {
  UserState state;
  std::vector<Step> steps;  // flags undefined after the last one: `undefined_after`
  u16 undefined_after = 0;

  // The code, with branches resolved.
  std::vector<u8> code() const;
  // Offset of a step's first byte from the start; of the end for steps.size().
  u32 offset(size_t step) const;
  // Finds undefined_before of each step and undefined_after; the first step that reads an undefined
  // flag, or -1.
  int propagate_flags();
  // The step at an address, or -1 (the address of the filler right behind is steps.size()).
  int step_at(u64 rip) const;
};

class Generator {
 public:
  Generator(u64 features, u64 seed, bool code32 = false);

  void fill_data(u8* data);  // the writable pages
  Sequence sequence();
  // Opcodes that can be drawn.
  const std::vector<const cpu::table::Row*>& rows() const { return rows_; }
  // Only rows of this opcode.
  void restrict_to(cpu::Opcode opcode);
  Random& random() { return random_; }

 private:
  struct Registers;  // what the generator knows of register contents
  void random_state(UserState& state, Registers& known);
  bool code32() const { return mode_.code_size == cpu::CodeSize::k32; }
  Step decoded(std::initializer_list<u8> bytes) const;
  void add_loop(Sequence& sequence);
  bool random_step(Registers& known, Step& step);
  u32 encode(const cpu::table::Row& row, Registers& known, u8* out);
  u32 encode_modrm(const cpu::table::Row& row, Registers& known, u8 rex_rxb, u8* out);
  void note_written(const cpu::Instruction& instruction, Registers& known);
  void place_branch(Sequence& sequence, size_t step);
  void resolve_flags(Sequence& sequence);

  cpu::DecodeMode mode_;
  Random random_;
  std::vector<const cpu::table::Row*> rows_;
};

// Whether C1 of the x87 status word is 0 after it by Intel's manual and something else on AMD's
// processors.
bool leaves_c1_open(cpu::Opcode opcode);
// Why an opcode is not drawn; nullptr when it is.
const char* excluded(cpu::Opcode opcode);

}  // namespace smol::isa

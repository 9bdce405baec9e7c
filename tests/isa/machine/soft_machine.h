// The interpreter as a machine for instruction tests: 64-bit ring 3 over the world of state.h, with
// an IDT whose every gate leads to a HLT in ring 0, so that each exception goes the whole way and
// is then read from the stack frame.
#pragma once

#include <memory>

#include "cpu/interp/engine.h"
#include "machine/state.h"

namespace smol::isa {

class SoftMachine {
 public:
  static std::unique_ptr<SoftMachine> create(u64 features);

  // The bytes of the data pages, kDataSize of them, as they are now.
  u8* data();
  // Fills the code page with kFiller and puts code at the offset.
  void set_code(const u8* code, u32 size, u32 offset);
  // Runs from state.rip until an exception, or about `limit` instructions.
  Outcome run(const UserState& state, u64 limit);
  u64 retired() const { return engine_->cpu().retired; }

 private:
  class World;
  SoftMachine();
  void build_tables();
  void load(const UserState& state);
  void read_outcome(Outcome& outcome);

  std::unique_ptr<cpu::Environment> environment_;
  std::unique_ptr<memory::GuestMemory> memory_;
  std::unique_ptr<cpu::Engine> engine_;
  u8* ram_ = nullptr;

 public:
  ~SoftMachine();
};

// The model x86-64-v2's features, as the decoder's set.
u64 v2_features();

}  // namespace smol::isa

// Several vCPUs of one machine that run the same guest code together, each on a thread of its own.
//
// Each starts in long mode at kCode with its number in RDI, the number of vCPUs in RSI, the rounds
// to do in RBP, and a stack of its own; it ends with an OUT, to kRight when all is as it should be.
#pragma once

#include "machine.h"

namespace smol::conformance {

inline constexpr u16 kRight = 0x10;
inline constexpr u64 kHandlers = 0x2000;  // 256 bytes each
inline constexpr u64 kFunction = 0x3000;  // code that is changed

inline bool has_vcpus(const std::string& accelerator, u32 count) {
  return hypervisor_of(accelerator).capabilities().max_vcpus >= count;
}

// Fewer rounds on KVM: it may be a nested one on a single emulated processor, where each wait for
// another vCPU takes a time slice.
inline u64 rounds_together(const std::string& accelerator, u64 rounds) {
  return accelerator == "kvm" ? rounds / 20 : rounds;
}

// The gate of the vector leads to `handler`, loaded at kHandlers + 256 * number.
inline void set_handler(Machine& machine, u32 vector, u32 number, ConstByteSpan handler) {
  const u64 at = kHandlers + 256 * u64{number};
  machine.load(at, handler);
  machine.poke(kIdt + 16 * u64{vector},
               (at & 0xffff) | u64{kCode64} << 16 | u64{0x8e00} << 32 | (at >> 16) << 48);
  machine.poke(kIdt + 16 * u64{vector} + 8, u64{0});
}

// The port of each one's OUT; 0 for any other exit.
inline std::vector<u16> run_team(Machine& machine, ConstByteSpan code, u32 count, u64 rounds) {
  machine.load(kCode, code);
  for (u32 id = 0; id < count; ++id) {
    CpuState state = long_mode(machine.get_state(id), kCode);
    state.general.gpr[kRdi] = id;
    state.general.gpr[kRsi] = count;
    state.general.gpr[kRbp] = rounds;
    state.general.gpr[kRsp] = kStackTop - 0x400 * u64{id};
    machine.set_state(state, id);
  }
  std::vector<u16> ports(count);
  std::vector<std::thread> threads;
  for (u32 id = 0; id < count; ++id)
    threads.emplace_back([&machine, &ports, id] {
      const Exit exit = machine.run(id);
      if (const auto* io = std::get_if<ExitPortIo>(&exit))
        ports[id] = io->port;
      else
        ADD_FAILURE() << "vCPU " << id << ": " << Machine::describe(exit);
    });
  for (std::thread& thread : threads) thread.join();
  return ports;
}

}  // namespace smol::conformance

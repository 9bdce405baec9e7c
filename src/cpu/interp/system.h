// The parts of the system architecture that are plain functions over the CPU's state, used by
// handlers and by the run loop. Each returns false with cpu.stop set when it raised an exception or
// needs the outside; the state is then unchanged.
#pragma once

#include "cpu/state/cpu.h"

namespace smol::cpu {

enum class EventKind : u8 {
  kFault,
  kTrap,
  kExternal,
  kNmi,
  kSoftware /* INT n */,
  kSoftwareException /* INT3, INTO */,
  kInt1
};

// Delivers an event through the IDT (or the IVT in real mode): SDM vol. 3 chapter 6. cpu.rip must
// be the return address. Faults met on the way are combined into #DF or a shutdown (cpu.stop =
// kShutdown) here. Returns false when delivery itself needs the outside (an IDT in MMIO) or shut
// down; true when the handler's first instruction is next.
bool deliver_event(Cpu& cpu, EventKind kind, u8 vector, bool has_error_code, u32 error_code);
// Delivers cpu.fault (sets CR2 or DR6 first).
bool deliver_fault(Cpu& cpu);

// Loads a segment register with all checks of MOV/POP/LDS (not CS; SS by the rules of SS).
bool load_segment(Cpu& cpu, u8 index, u16 selector);
// Sets a segment's hidden part without checks and keeps segment_base in step.
void set_segment(Cpu& cpu, u8 index, const SegmentRegister& value);
// Sets segment_base[] from segments[] and the mode: after CS, EFER or CR0 changed.
void refresh_segment_bases(Cpu& cpu);
void set_cpl(Cpu& cpu, u8 cpl);

bool write_cr0(Cpu& cpu, u64 value);
bool write_cr3(Cpu& cpu, u64 value);
bool write_cr4(Cpu& cpu, u64 value);
// Every MSR of the CPU; the others go to the environment. False: #GP(0) raised.
bool read_msr(Cpu& cpu, u32 index, u64& value);
bool write_msr(Cpu& cpu, u32 index, u64 value);

// Port access rights: IOPL, then the TSS's I/O bitmap. False: #GP(0) raised.
bool check_port(Cpu& cpu, u16 port, u32 size);
// One port access through the I/O log (cpu.io): false with Stop::kIo until the outside answered.
bool port_read(Cpu& cpu, u16 port, u32 size, u32& value);
bool port_write(Cpu& cpu, u16 port, u32 size, u32 value);

// State after power-up or reset, and after INIT, which keeps x87, MMX and SSE state, XCR0, the MSRs
// but EFER, and CR0.CD and NW (SDM vol. 3, table 10-1).
void reset(Cpu& cpu);
void init_reset(Cpu& cpu);

}  // namespace smol::cpu

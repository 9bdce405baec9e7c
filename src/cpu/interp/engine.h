// The interpreter: finds or decodes the block at RIP, runs it, and stops for what only the outside
// can do.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "cpu/interp/system.h"
#include "cpu/mmu/slots.h"
#include "cpu/state/cpu.h"
#include "cpu/state/environment.h"
#include "memory/guest_memory.h"

namespace smol::cpu {

class EngineGroup;  // engine_group.h

struct EngineConfig {
  u64 features = 0;  // decoder FeatureSet of the CPU model
  // The engines of a machine with several CPUs; outlives them. Their slots have marks then.
  EngineGroup* group = nullptr;
  u32 index = 0;  // this one's number in the group
};

class Engine {
 public:
  // memory: for DMA notices (it calls invalidate through the owner) and page watching; outlives the
  // engine.
  static std::unique_ptr<Engine> create(const EngineConfig& config, memory::GuestMemory& memory,
                                        Environment& environment);
  virtual ~Engine() = default;

  virtual Cpu& cpu() = 0;

  // Runs at most about `instructions` guest instructions (never stops inside one). Returns why it
  // stopped:
  //   kEndOfSlice, kAttention (attention was set; it is cleared), kHalt, kShutdown, or kIo: then
  //   cpu().io.pending is the access; the caller answers by complete_io() and runs again. Faults
  //   are delivered inside.
  // cpu().retired is exact on return.
  virtual Stop run(u64 instructions) = 0;
  virtual void complete_io(u64 value) = 0;

  // The caller may inject when this is true: RFLAGS.IF, no shadow, no instruction half done (a
  // pending I/O replay).
  virtual bool can_interrupt() const = 0;
  // Delivers an external interrupt or NMI now; false when the delivery shut the CPU down.
  virtual bool interrupt(u8 vector) = 0;
  virtual bool nmi() = 0;
  // The same for an event of any kind, as it comes with a saved state.
  virtual bool deliver(EventKind kind, u8 vector, bool has_error_code, u32 error_code) = 0;
  // After the caller wrote cpu() directly (set_state, reset): drops TLB and lookups that depend on
  // the mode.
  virtual void state_changed() = 0;

  // vCPU's thread, between runs.
  virtual void set_slots(std::span<const PhysicalSlot> slots) = 0;
  // One bit a page of the slot, taken and cleared. With several CPUs: of what all of them wrote,
  // any thread, and their translations are gone when it returns.
  virtual std::vector<u64> take_dirty_log(u32 slot_id) = 0;

  // Memory changed under decoded code. Any thread: queued, and attention set; done before the next
  // block of the next slice.
  virtual void invalidate_code(u64 physical, u64 size) = 0;

  // Bytes of decoded code held now. vCPU's thread.
  virtual u64 cache_bytes() const = 0;
  // Gives the memory of decoded code and of translations back to the host; what the guest still
  // needs is made anew. For a guest that idles. vCPU's thread, between runs.
  virtual void trim() = 0;
};

}  // namespace smol::cpu

// The engine's own class; engine.h is what others see.
#pragma once

#include <mutex>
#include <vector>

#include "cpu/interp/block_cache.h"
#include "cpu/interp/engine.h"
#include "cpu/interp/lower.h"
#include "cpu/mmu/mmu.h"

namespace smol::cpu {

class EngineImpl final : public Engine, private CodeObserver {
 public:
  EngineImpl(const EngineConfig& config, memory::GuestMemory& memory, Environment& environment);

  Cpu& cpu() override { return cpu_; }
  Stop run(u64 instructions) override;
  void complete_io(u64 value) override;
  bool can_interrupt() const override;
  bool interrupt(u8 vector) override;
  bool nmi() override;
  void state_changed() override;
  void set_slots(std::span<const PhysicalSlot> slots) override;
  std::vector<u64> take_dirty_log(u32 slot_id) override;
  void invalidate_code(u64 physical, u64 size) override;

 private:
  enum Mode : u32 {  // bits of a block's mode
    kMode16 = 0,
    kMode32 = 1,
    kMode64 = 2,
    kModeSizeMask = 3,
    kModeStackBig = 4,
    kModeReal = 8,
    kModeUser = 16,
    kModeFpuTrap = 32,
    kModeSse = 64,
    kModeSingle = 128,
  };

  // CodeObserver
  void code_written(u64 physical, u64 size) override;
  void page_dropped(u64 linear_page) override;
  void all_dropped(bool user) override;

  Stop run_guest(u64 instructions);
  void run_slice();
  bool must_step() const;
  void step();
  void trap_after_step(bool was_tf, u8 cpl_before);
  bool instruction_breakpoint();
  void enter(Block* block);
  bool handle_stop();
  void update_mode();
  BlockMode block_mode(u32 mode) const;
  Block* find_block(u32 mode);
  Block* build_block(u64 linear, const CodeLocation& at, u32 mode);
  bool fetch_split(u64 linear, const CodeLocation& at, u8* bytes, u64& second_page);
  bool second_page_matches(const Block& block, u64 linear);
  void drop_all_blocks();
  void drain_invalidations();
  void set_jump_tag() {
    cpu_.jump_tag = (jump_generations_[(mode_ & kModeUser) != 0] << 16) | mode_;
  }
  void account() {
    cpu_.retired += static_cast<u64>(cpu_.slice - cpu_.budget);
    cpu_.slice = cpu_.budget;
  }

  Cpu cpu_;
  u64 features_;
  memory::GuestMemory& memory_;
  Mmu mmu_;
  BlockCache blocks_;
  u32 mode_ = 0;
  u64 code_base_ = 0;
  u64 deliveries_ = 0;                // exceptions delivered inside run()
  u64 jump_generations_[2] = {1, 1};  // [1]: ring 3
  std::unique_ptr<JumpEntry[]> jump_cache_;
  std::vector<u64> pages_;  // scratch
  std::mutex mutex_;
  std::vector<std::pair<u64, u64>> invalidations_;  // guarded by mutex_
};

}  // namespace smol::cpu

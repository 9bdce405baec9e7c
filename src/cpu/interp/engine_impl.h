// The engine's own class; engine.h is what others see.
#pragma once

#include <mutex>
#include <vector>

#include "base/fd.h"
#include "cpu/interp/block_cache.h"
#include "cpu/interp/engine.h"
#include "cpu/interp/engine_group.h"
#include "cpu/interp/lower.h"
#include "cpu/mmu/mmu.h"

namespace smol::cpu {

class EngineImpl final : public Engine, private CodeObserver {
 public:
  EngineImpl(const EngineConfig& config, memory::GuestMemory& memory, Environment& environment);
  ~EngineImpl() override;

  Cpu& cpu() override { return cpu_; }
  Stop run(u64 instructions) override;
  void complete_io(u64 value) override;
  bool can_interrupt() const override;
  bool interrupt(u8 vector) override;
  bool nmi() override;
  bool deliver(EventKind kind, u8 vector, bool has_error_code, u32 error_code) override;
  void state_changed() override;
  void set_slots(std::span<const PhysicalSlot> slots) override;
  std::vector<u64> take_dirty_log(u32 slot_id) override;
  void invalidate_code(u64 physical, u64 size) override;
  u64 cache_bytes() const override { return blocks_.used_bytes(); }
  void trim() override;

  // --- among several engines; engine_group.cc ---
  // The engine's thread. Requests that wait are served on the way in.
  void enter_guest();
  void leave_guest();
  void begin_exclusive();
  void end_exclusive();
  void yield();
  // Any thread.
  bool in_guest() const { return in_guest_.load(); }
  u64 request_withdrawal(u64 page);
  u64 request_flush();
  bool served(u64 ticket) const { return served_.load() >= ticket; }

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
  void insert_block(Block* block);
  bool fetch_split(u64 linear, const CodeLocation& at, u8* bytes, CodeLocation& next);
  bool second_page_matches(const Block& block, u64 linear);
  void drop_code(u64 physical, u64 size);
  void drop_all_blocks();
  void blocks_dropped();
  void serve_translations();
  void drain_invalidations();
  template <class F>
  u64 request(F enter);
  void publish_code(u64 page, u32 start, u32 end);
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
  base::Mapping jump_cache_mapping_;  // demand-zero
  JumpEntry* jump_cache_;
  std::vector<u64> pages_;  // scratch

  // What other threads want done to this one's translations.
  struct Requests {
    std::vector<u64> withdrawals;  // pages to which nothing is to be stored unseen
    bool withdraw_all = false, flush = false;
  };
  EngineGroup* const group_;  // nullptr: the machine's only CPU
  const u32 index_;
  std::mutex mutex_;
  // Guarded by mutex_.
  std::vector<std::pair<u64, u64>> invalidations_;  // code that changed: address, size
  bool drop_all_ = false;
  Requests requests_;
  std::atomic<u64> posted_{0}, served_{0};
  std::atomic<bool> in_guest_{false};
  u64 yielded_at_ = 0;  // instructions retired by then
  u32 yields_ = 0;      // of a guest that spins
};

}  // namespace smol::cpu

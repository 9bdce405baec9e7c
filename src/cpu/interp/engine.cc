// The run loop. It enters blocks and comes back for everything that a block cannot do by itself: a
// target that no cache knows, an event to deliver, a change of mode, single steps, an access that
// the outside must do. The budget is the clock: a block is only left at a jump when it is used up,
// so a slice ends within a block's length of what was asked.
#include <sys/mman.h>

#include <algorithm>

#include "base/check.h"
#include "base/give_back.h"
#include "cpu/interp/engine_impl.h"
#include "cpu/interp/exits.h"
#include "cpu/interp/host_fp.h"
#include "cpu/interp/system.h"

namespace smol::cpu {
namespace {

constexpr i64 kSlice = 20000;       // instructions between looks at `attention`
constexpr i64 kSharedSlice = 4000;  // the same with other CPUs, which may wait for this one
constexpr i64 kShortSlice = 256;
constexpr u64 kDr6SingleStep = 1 << 14;
constexpr u64 kJumpCacheBytes = kJumpSets * kJumpSetSize * sizeof(JumpEntry);

// Decoded code takes some ten times the bytes of the code itself, and a small guest is no reason
// for a large cache. kernel and init of a guest of 64 MiB need 10 MiB while they boot.
u64 arena_for(const memory::GuestMemory& memory) {
  return std::clamp<u64>(base::align_down(memory.size() / 2, kPageSize), 16 * kMiB,
                         BlockCache::kLargestArena);
}

base::Mapping map_jump_cache() {
  auto mapping = base::Mapping::map(kJumpCacheBytes, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0, "the jump cache");
  CHECK(mapping.has_value());
  return std::move(*mapping);
}

}  // namespace

std::unique_ptr<Engine> Engine::create(const EngineConfig& config, memory::GuestMemory& memory,
                                       Environment& environment) {
  return std::make_unique<EngineImpl>(config, memory, environment);
}

EngineImpl::EngineImpl(const EngineConfig& config, memory::GuestMemory& memory,
                       Environment& environment)
    : features_(config.features),
      memory_(memory),
      mmu_(cpu_, std::clamp<u32>(environment.cpuid(0x80000008, 0, 0).eax & 0xff, 36, 52)),
      blocks_(arena_for(memory)),
      jump_cache_mapping_(map_jump_cache()),
      jump_cache_(reinterpret_cast<JumpEntry*>(jump_cache_mapping_.data())),
      group_(config.group),
      index_(config.index) {
  cpu_.environment = &environment;
  cpu_.engine = this;
  cpu_.jump_cache = jump_cache_;
  mmu_.set_observer(this);
  reset(cpu_);
  state_changed();
  if (group_ == nullptr) return;
  cpu_.several = true;
  mmu_.join(index_);
  group_->join(index_, *this);
}

EngineImpl::~EngineImpl() {
  if (group_ != nullptr) group_->leave(index_);
}

// --- Running
// -------------------------------------------------------------------------------------------------------

Stop EngineImpl::run(u64 instructions) {
  enter_guest_fp(cpu_);
  enter_guest();
  const Stop stop = run_guest(instructions);
  leave_guest();
  leave_guest_fp(cpu_);
  return stop;
}

// Attention that is already set on the way in costs a short slice, not the whole run: the owner may
// set it from its own look at timers, and the guest has to get on in any case.
Stop EngineImpl::run_guest(u64 instructions) {
  const u64 start = cpu_.retired, first_delivery = deliveries_;
  for (;;) {
    const bool attention = cpu_.attention.exchange(false, std::memory_order_acquire);
    if (attention) {
      drain_invalidations();
      if (!served(posted_.load())) serve_translations();
    }
    if (attention && cpu_.retired != start) return Stop::kAttention;
    if (cpu_.window_wanted && can_interrupt()) return Stop::kAttention;
    const u64 done = cpu_.retired - start + (deliveries_ - first_delivery);
    if (done >= instructions) return Stop::kEndOfSlice;
    const i64 most = attention ? kShortSlice : group_ != nullptr ? kSharedSlice : kSlice;
    cpu_.stop = Stop::kNone;
    cpu_.budget = cpu_.slice =
        static_cast<i64>(std::min<u64>(instructions - done, static_cast<u64>(most)));
    run_slice();
    account();
    if (cpu_.stop == Stop::kIo || cpu_.stop == Stop::kHalt || cpu_.stop == Stop::kShutdown)
      return cpu_.stop;
    if (attention) return Stop::kAttention;
  }
}

bool EngineImpl::must_step() const {
  return (cpu_.flags & kFlagTf) != 0 || cpu_.interrupt_shadow || cpu_.io.done_count != 0 ||
         (cpu_.dr7 & 0xff) != 0;
}

void EngineImpl::run_slice() {
  // A jump that waited for its target when the last slice ended: an interrupt may have come
  // between, and RIP is not its target any more.
  cpu_.link_from = nullptr;
  while (cpu_.budget > 0) {
    if (cpu_.attention.load(std::memory_order_relaxed)) return;
    if (cpu_.window_wanted && can_interrupt()) return;
    update_mode();
    if (must_step()) [[unlikely]] {
      step();
    } else if (Block* const block = find_block(mode_)) {
      enter(block);
    }
    if (cpu_.stop != Stop::kNone && !handle_stop()) return;
  }
}

void EngineImpl::enter(Block* block) {
  const Op* op = block->ops();
  const u64 linear = cpu_.rip + code_base_;
  cpu_.gpr[kPageSlot] = (linear & ~u64{0xfff}) - code_base_;
  if (cpu_.link_from != nullptr) {
    // Targets with a split instruction depend on a second page's mapping: those are looked up each
    // time.
    if (block->second_page == kNoPage && !block->stale)
      static_cast<Op*>(const_cast<void*>(cpu_.link_from))->immediate = reinterpret_cast<u64>(op);
    cpu_.link_from = nullptr;
  }
#if SMOL_TAIL_CALLS
  op->handler(&cpu_, op);
#else
  while (op != nullptr) op = op->handler(&cpu_, op);
#endif
}

// False: the slice is over (cpu_.stop says why).
bool EngineImpl::handle_stop() {
  cpu_.link_from = nullptr;
  switch (cpu_.stop) {
    case Stop::kFault:
      cpu_.io.done_count = cpu_.io.replayed = 0;
      cpu_.stop = Stop::kNone;
      // A delivery retires nothing and still takes its share of the slice: a guest whose handlers
      // fault for ever must come back to the caller as any other.
      ++deliveries_;
      --cpu_.budget;
      --cpu_.slice;
      if (!deliver_fault(cpu_) && cpu_.stop == Stop::kShutdown) return false;
      cpu_.stop = Stop::kNone;
      return true;
    case Stop::kReload:
      cpu_.stop = Stop::kNone;
      return true;
    default:
      return false;
  }
}

// One instruction, for whatever has to be looked at between instructions.
void EngineImpl::step() {
  const bool tf = (cpu_.flags & kFlagTf) != 0, rf = (cpu_.flags & kFlagRf) != 0;
  const bool shadow = cpu_.interrupt_shadow;
  const u8 cpl = cpu_.cpl;
  if ((cpu_.dr7 & 0xff) != 0 && !rf && instruction_breakpoint()) return;
  Block* const block = find_block(mode_ | kModeSingle);
  if (block == nullptr) return;
  cpu_.link_from = nullptr;
  account();
  const i64 saved = cpu_.budget;
  cpu_.interrupt_shadow = false;
  cpu_.io.replayed = 0;
  cpu_.slice = cpu_.budget = 1;
  mmu_.take_breakpoint_hits();
  enter(block);
  const bool retired = cpu_.budget <= 0;
  account();
  cpu_.slice = cpu_.budget = saved - (retired ? 1 : 0);
  if (!retired) {
    cpu_.interrupt_shadow = shadow;
    return;
  }
  cpu_.io.done_count = cpu_.io.replayed = 0;
  if (rf) cpu_.flags &= ~kFlagRf;
  if (cpu_.stop == Stop::kNone) trap_after_step(tf, cpl);
}

// #DB after an instruction: it was stepped, or it touched data under a breakpoint.
void EngineImpl::trap_after_step(bool was_tf, u8 cpl_before) {
  u64 why = mmu_.take_breakpoint_hits();
  // SYSCALL and the like cleared TF on the way to an inner ring.
  if (was_tf && (cpu_.cpl >= cpl_before || (cpu_.flags & kFlagTf) != 0)) why |= kDr6SingleStep;
  if (why == 0) return;
  cpu_.stop = Stop::kFault;
  cpu_.fault = Fault{.vector = kDebug, .trap = true, .address = why};
}

bool EngineImpl::instruction_breakpoint() {
  u64 hits = 0;
  for (u32 i = 0; i < 4; ++i) {
    const bool enabled = ((cpu_.dr7 >> (2 * i)) & 3) != 0;
    const bool execute = ((cpu_.dr7 >> (16 + 4 * i)) & 3) == 0;
    if (enabled && execute && cpu_.dr[i] == cpu_.rip + code_base_) hits |= u64{1} << i;
  }
  if (hits == 0) return false;
  cpu_.stop = Stop::kFault;
  cpu_.fault = Fault{.vector = kDebug, .address = hits};
  return true;
}

void EngineImpl::complete_io(u64 value) {
  IoLog& io = cpu_.io;
  if (cpu_.stop != Stop::kIo) return;
  cpu_.stop = Stop::kNone;
  if (io.done_count == IoLog::kCapacity) {
    // No instruction needs that many: its image of an area lies in MMIO. Give it up.
    io.done_count = io.replayed = 0;
    raise_gp0(cpu_);
    enter_guest();
    static_cast<void>(handle_stop());
    leave_guest();
    return;
  }
  io.done[io.done_count] = io.pending;
  if (!io.pending.write) io.done[io.done_count].value = value;
  ++io.done_count;
  io.replayed = 0;
}

// --- Events from outside
// -------------------------------------------------------------------------------------------

bool EngineImpl::can_interrupt() const {
  return (cpu_.flags & kFlagIf) != 0 && !cpu_.interrupt_shadow && cpu_.io.done_count == 0 &&
         cpu_.stop != Stop::kIo;
}

bool EngineImpl::interrupt(u8 vector) { return deliver(EventKind::kExternal, vector, false, 0); }

bool EngineImpl::nmi() {
  cpu_.nmi_masked = true;
  return deliver(EventKind::kNmi, kNmi, false, 0);
}

bool EngineImpl::deliver(EventKind kind, u8 vector, bool has_error_code, u32 error_code) {
  cpu_.halted = false;
  cpu_.stop = Stop::kNone;
  enter_guest();
  const bool delivered = deliver_event(cpu_, kind, vector, has_error_code, error_code);
  leave_guest();
  return delivered || cpu_.stop != Stop::kShutdown;
}

void EngineImpl::state_changed() {
  cpu_.io.done_count = cpu_.io.replayed = 0;
  cpu_.stop = Stop::kNone;
  refresh_segment_bases(cpu_);
  mmu_.flush_all();
  mmu_.select();
}

void EngineImpl::set_slots(std::span<const PhysicalSlot> slots) {
  mmu_.slots().set(slots);
  drop_all_blocks();
  mmu_.flush_all();
}

std::vector<u64> EngineImpl::take_dirty_log(u32 slot_id) {
  std::vector<u64> log = mmu_.slots().take_dirty(slot_id);
  if (group_ != nullptr)
    group_->flush_all();
  else
    mmu_.flush_all();
  return log;
}

// --- Code that changes
// ---------------------------------------------------------------------------------------------

void EngineImpl::drop_code(u64 physical, u64 size) {
  pages_.clear();
  blocks_.invalidate(physical, size, pages_);
  // Among several, the masks are everybody's: whoever stores clears what he hits.
  if (group_ != nullptr) return;
  for (const u64 page : pages_) mmu_.set_code_granules(page, blocks_.granules(page));
}

void EngineImpl::code_written(u64 physical, u64 size) {
  drop_code(physical, size);
  if (group_ != nullptr) group_->drop_code(*this, physical, size);
}

void EngineImpl::all_dropped(bool user) {
  ++jump_generations_[user];
  set_jump_tag();
}

void EngineImpl::page_dropped(u64 linear_page) {
  if (!cpu_.long_mode()) {
    all_dropped(false);
    all_dropped(true);
    return;
  }
  // A block of the page before may end in a split instruction that reaches into this one.
  for (const u64 page : {linear_page, linear_page - kPageSize}) {
    JumpEntry* const set = &jump_cache_[((page >> 12) & (kJumpSets - 1)) * kJumpSetSize];
    for (u32 i = 0; i < kJumpSetSize; ++i) set[i].tag = 0;
  }
}

void EngineImpl::drop_all_blocks() {
  pages_.clear();
  blocks_.clear(pages_);
  blocks_dropped();
}

// pages_ held code.
void EngineImpl::blocks_dropped() {
  if (group_ == nullptr)
    for (const u64 page : pages_) mmu_.set_code_granules(page, 0);
  all_dropped(false);
  all_dropped(true);
  cpu_.link_from = nullptr;
}

// Among several CPUs the pages' masks stay: a store there clears what it hits.
void EngineImpl::trim() {
  pages_.clear();
  blocks_.trim(pages_);
  blocks_dropped();
  std::vector<u64>().swap(pages_);
  base::discard(jump_cache_, kJumpCacheBytes);
  mmu_.trim();
}

}  // namespace smol::cpu

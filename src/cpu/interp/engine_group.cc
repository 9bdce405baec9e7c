// See engine_group.h. The requests' queues and the way into and out of the guest are the engine's
// members here.
#include "cpu/interp/engine_group.h"

#include <sched.h>
#include <time.h>

#include <algorithm>

#include "cpu/interp/engine_impl.h"

namespace smol::cpu {
namespace {

// Queues are bounded: the guest decides how many requests there are. Beyond it, everything is
// dropped.
constexpr std::size_t kMostInvalidations = 4096, kMostWithdrawals = 256;

// One step of waiting for another of the machine's CPUs: it is in its slice, or the host has put it
// aside. Who burns his time here is put aside himself when his turn comes, so after some steps this
// sleeps.
void wait_a_little(u32 step) {
  constexpr u32 kYields = 16, kMostSleep = 160'000;  // ns
  if (step < kYields) {
    ::sched_yield();
    return;
  }
  const timespec time{.tv_sec = 0,
                      .tv_nsec = std::min(kMostSleep, 10'000u << std::min(step - kYields, 4u))};
  ::nanosleep(&time, nullptr);
}

template <class F>
void wait_while(F condition) {
  constexpr u32 kSpins = 200;
  for (u32 round = 0; condition(); ++round)
    if (round >= kSpins) wait_a_little(round - kSpins);
}

}  // namespace

// --- The group
// -------------------------------------------------------------------------------------------------------------------

void EngineGroup::drop_code(const EngineImpl& from, u64 physical, u64 size) {
  for (const auto& slot : engines_)
    if (EngineImpl* const engine = slot.load(); engine != nullptr && engine != &from)
      engine->invalidate_code(physical, size);
}

template <class F>
void EngineGroup::ask(u32 engines, F request) {
  std::array<u64, kMostEngines> tickets{};
  for (u32 i = 0; i < kMostEngines; ++i)
    if (((engines >> i) & 1) != 0)
      if (EngineImpl* const engine = engines_[i].load()) tickets[i] = request(*engine);
  for (u32 i = 0; i < kMostEngines; ++i)
    if (tickets[i] != 0)
      if (EngineImpl* const engine = engines_[i].load())
        wait_while([&] { return engine->in_guest() && !engine->served(tickets[i]); });
}

void EngineGroup::withdraw_writers(EngineImpl& from, u32 engines, u64 page) {
  from.leave_guest();
  ask(engines, [page](EngineImpl& engine) { return engine.request_withdrawal(page); });
  from.enter_guest();
}

void EngineGroup::flush_all() {
  ask(~u32{0}, [](EngineImpl& engine) { return engine.request_flush(); });
}

void EngineGroup::begin_exclusive(EngineImpl& from) {
  from.leave_guest();
  exclusive_mutex_.lock();
  exclusive_.store(1);
  for (const auto& slot : engines_) {
    EngineImpl* const engine = slot.load();
    if (engine == nullptr || engine == &from) continue;
    engine->cpu().attention.store(true);
    wait_while([&] { return engine->in_guest(); });
  }
}

void EngineGroup::end_exclusive(EngineImpl& from) {
  exclusive_.store(0);
  exclusive_.notify_all();
  exclusive_mutex_.unlock();
  from.enter_guest();
}

// --- The engine's side
// -----------------------------------------------------------------------------------------------------------

void EngineImpl::enter_guest() {
  if (group_ == nullptr) return;
  for (;;) {
    in_guest_.store(true);
    if (!group_->exclusive()) break;
    in_guest_.store(false);
    group_->wait_exclusive();
  }
  if (!served(posted_.load())) serve_translations();
}

void EngineImpl::leave_guest() {
  if (group_ != nullptr) in_guest_.store(false);
}

// Any thread. The number stands before `attention`, and before anybody waits for it.
template <class F>
u64 EngineImpl::request(F enter) {
  u64 ticket = 0;
  {
    const std::lock_guard lock(mutex_);
    enter(requests_);
    ticket = posted_.load() + 1;
    posted_.store(ticket);
  }
  cpu_.attention.store(true, std::memory_order_release);
  return ticket;
}

u64 EngineImpl::request_withdrawal(u64 page) {
  return request([&](Requests& requests) {
    auto& pages = requests.withdrawals;
    if (std::find(pages.begin(), pages.end(), page) != pages.end()) return;
    if (pages.size() < kMostWithdrawals)
      pages.push_back(page);
    else
      requests.withdraw_all = true;
  });
}

u64 EngineImpl::request_flush() {
  return request([](Requests& requests) { requests.flush = true; });
}

// Also in the middle of an instruction that waited for others.
void EngineImpl::serve_translations() {
  Requests taken;
  u64 ticket = 0;
  {
    const std::lock_guard lock(mutex_);
    std::swap(taken, requests_);
    ticket = posted_.load();
  }
  for (const u64 page : taken.withdrawals) mmu_.withdraw(page);
  if (taken.withdraw_all) mmu_.withdraw_all();
  if (taken.flush) mmu_.flush_all();
  served_.store(ticket);
}

void EngineImpl::invalidate_code(u64 physical, u64 size) {
  {
    const std::lock_guard lock(mutex_);
    if (!invalidations_.empty() && invalidations_.back() == std::pair{physical, size}) return;
    if (invalidations_.size() < kMostInvalidations)
      invalidations_.emplace_back(physical, size);
    else
      drop_all_ = true;
  }
  cpu_.attention.store(true, std::memory_order_release);
}

// Between blocks only: memory of dropped ones may be used again.
void EngineImpl::drain_invalidations() {
  std::vector<std::pair<u64, u64>> taken;
  bool all = false;
  {
    const std::lock_guard lock(mutex_);
    taken.swap(invalidations_);
    all = std::exchange(drop_all_, false);
  }
  if (all) return drop_all_blocks();
  for (const auto& [physical, size] : taken) drop_code(physical, size);
}

void EngineImpl::begin_exclusive() {
  if (group_ != nullptr) group_->begin_exclusive(*this);
}

void EngineImpl::end_exclusive() {
  if (group_ != nullptr) group_->end_exclusive(*this);
}

// The guest spins. When it does little else, it waits for another CPU.
void EngineImpl::yield() {
  constexpr u64 kSpinning = 1000;  // instructions since the last time
  const u64 now = cpu_.retired + static_cast<u64>(cpu_.slice - cpu_.budget);
  yields_ = now - yielded_at_ < kSpinning ? yields_ + 1 : 0;
  yielded_at_ = now;
  leave_guest();
  wait_a_little(yields_);
  enter_guest();
}

SMOL_REALIGN void begin_exclusive(Cpu* cpu) {
  static_cast<EngineImpl*>(cpu->engine)->begin_exclusive();
}
SMOL_REALIGN void end_exclusive(Cpu* cpu) {
  static_cast<EngineImpl*>(cpu->engine)->end_exclusive();
}
SMOL_REALIGN void yield_host(Cpu* cpu) { static_cast<EngineImpl*>(cpu->engine)->yield(); }

}  // namespace smol::cpu

// The engines of one machine, where what one does concerns the others: code that was written over,
// write tags that must go before code is decoded, translations that must go, and moments at which
// nobody else may run.
//
// An engine is "in the guest" while it may touch guest memory (run() and the delivery of events). A
// request is queued for the other engine and its `attention` set; it is served on that engine's
// thread between blocks (and what concerns translations whenever it enters the guest again). So
// whoever has to wait for an engine waits until the request was served or the engine is out of the
// guest; and who waits is out of the guest itself, so that nobody waits in a circle.
// Cross-modifying code (SDM vol. 3, 8.1.3) asks that a processor sees new code after an instruction
// that serializes it: those leave the block, and the run loop looks at `attention` there. Threads:
// the engines', and flush_all() of any other.
#pragma once

#include <array>
#include <atomic>
#include <mutex>

#include "base/bytes.h"

namespace smol::cpu {

class EngineImpl;

class EngineGroup {
 public:
  static constexpr u32 kMostEngines = 32;

  void join(u32 index, EngineImpl& engine) { engines_[index].store(&engine); }
  void leave(u32 index) { engines_[index].store(nullptr); }

  // The bytes changed: code that was decoded from them is dropped everywhere but in `from`.
  void drop_code(const EngineImpl& from, u64 physical, u64 size);
  // Returns when none of the engines (a bit each) can store to the page unseen any more.
  void withdraw_writers(EngineImpl& from, u32 engines, u64 page);
  // Returns when no engine uses a translation that it has now. Not from inside the guest.
  void flush_all();

  // Between these two, `from` is the only engine that touches guest memory.
  void begin_exclusive(EngineImpl& from);
  void end_exclusive(EngineImpl& from);

  // Called on the way into the guest, out of it: true when an exclusive section is on
  // (wait_exclusive, and try again).
  bool exclusive() const { return exclusive_.load() != 0; }
  void wait_exclusive() const { exclusive_.wait(1); }

 private:
  // Sends a request to each of the engines and waits for them.
  template <class F>
  void ask(u32 engines, F request);

  std::array<std::atomic<EngineImpl*>, kMostEngines> engines_{};
  std::mutex exclusive_mutex_;
  std::atomic<u32> exclusive_{0};
};

}  // namespace smol::cpu

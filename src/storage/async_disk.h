// Requests to a disk that nobody waits for: what would block a device's thread is done elsewhere,
// and told through an eventfd, many at a time.
//
// Two ways: io_uring for reads, writes and flushes of a disk whose bytes lie plainly in a file
// (Disk::plain), where the kernel has it; else, and for all else, a few threads. Both are made when
// the first request needs them, so that a disk which is only read from the page cache
// (Disk::try_read, the owner's business) costs neither.
//
// Requests run side by side and in any order; a flush covers the writes that were completed before
// it was submitted, which is what virtio promises too.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "base/fd.h"
#include "storage/disk.h"
#include "storage/io_ring.h"

namespace smol::storage {

// Its owner keeps it, and the memory of its buffers, where they are until it was taken back
// (take_completed) or cancel() returned.
struct DiskRequest {
  enum class Kind : u8 { kRead, kWrite, kFlush, kDiscard, kZero };
  struct Range {
    u64 offset = 0, size = 0;  // bytes
    bool may_unmap = false;
  };
  Kind kind = Kind::kRead;
  bool flush_after = false;    // kWrite, kZero: done when it is on stable storage
  u64 offset = 0;              // kRead, kWrite: bytes
  std::vector<iovec> buffers;  // kRead, kWrite
  std::vector<Range> ranges;   // kDiscard, kZero
  Result<> result;             // once completed
};

enum class AsyncMethod { kAny, kThreads };

// Threads: the owner's lock, around every call but completion_fd().
class AsyncDisk {
 public:
  static constexpr u32 kThreads = 4;

  static Result<std::unique_ptr<AsyncDisk>> create(std::unique_ptr<Disk> disk,
                                                   AsyncMethod method = AsyncMethod::kAny);
  // Cancels.
  ~AsyncDisk();

  Disk& disk() { return *disk_; }
  const Disk& disk() const { return *disk_; }

  void submit(DiskRequest& request);
  // Begins what was submitted since the last start().
  void start();
  // Readable when there is something to take; an eventfd that take_completed() empties.
  int completion_fd() const { return completed_event_.get(); }
  std::vector<DiskRequest*> take_completed();
  // Until there is something to take, at most timeout_ms.
  void wait(int timeout_ms) const;
  // Requests that were submitted and not taken.
  u32 under_way() const { return under_way_; }
  // Waits until no request touches its buffers; those that had not begun never will. Afterwards
  // none is under way and none is to be taken. Nothing is told about their results.
  void cancel();

 private:
  AsyncDisk(std::unique_ptr<Disk> disk, AsyncMethod method);
  void work();
  void execute(DiskRequest& request);
  void hand_to_threads(DiskRequest& request);
  bool hand_to_ring(DiskRequest& request);

  const std::unique_ptr<Disk> disk_;
  const AsyncMethod method_;
  base::UniqueFd completed_event_;
  u32 under_way_ = 0;
  bool ring_failed_ = false;
  std::unique_ptr<IoRing> ring_;

  std::mutex mutex_;  // guards all below
  std::condition_variable wanted_, idle_;
  std::deque<DiskRequest*> waiting_;
  std::vector<DiskRequest*> completed_;
  std::vector<std::thread> threads_;
  u32 running_ = 0;  // requests that threads work on
  u32 sleeping_ = 0;
  bool stop_ = false;
};

}  // namespace smol::storage

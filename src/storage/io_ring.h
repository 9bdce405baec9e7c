// A disk's io_uring (io_uring(7)) through liburing.
#pragma once

#include <memory>
#include <vector>

#include "base/log.h"
#include "storage/disk.h"

struct io_uring;

namespace smol::storage {

struct DiskRequest;

// Threads: the owner's lock.
class IoRing {
 public:
  // nullptr: the kernel has none, or does not let us. completed: an eventfd that is signalled when
  // there is something to take.
  static std::unique_ptr<IoRing> create(int completed);
  // Nothing may be under way.
  ~IoRing();

  // False: no room.
  bool add(DiskRequest& request, const Disk::Plain& plain);
  void submit();
  // Appends what is done to `done`, and what has to be done over again to `again`.
  void take(std::vector<DiskRequest*>& done, std::vector<DiskRequest*>& again);
  // Waits for all that was added and forgets it.
  void wait_for_all();

 private:
  IoRing() = default;
  std::unique_ptr<io_uring> ring_;
  unsigned added_ = 0;      // and not submitted
  unsigned under_way_ = 0;  // added and not taken
  base::RateLimit complaints_;
};

}  // namespace smol::storage

#include "storage/io_ring.h"

#include <sched.h>

// liburing's own inline functions are C that our warnings and C++23 do not fit.
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Weverything"
#include <liburing.h>
#pragma clang diagnostic pop

#include "storage/async_disk.h"
#include "storage/file.h"

namespace smol::storage {
namespace {
constexpr unsigned kEntries = 128;
constexpr int kTries = 10000;
}  // namespace

std::unique_ptr<IoRing> IoRing::create(int completed) {
  auto ring = std::unique_ptr<IoRing>(new IoRing());
  auto inner = std::make_unique<io_uring>();
  if (const int error = ::io_uring_queue_init(kEntries, inner.get(), 0); error != 0) {
    base::log_info("no io_uring ({}), disks use threads", std::strerror(-error));
    return nullptr;
  }
  if (::io_uring_register_eventfd(inner.get(), completed) != 0) {
    ::io_uring_queue_exit(inner.get());
    return nullptr;
  }
  ring->ring_ = std::move(inner);
  return ring;
}

IoRing::~IoRing() {
  if (!ring_) return;
  wait_for_all();
  ::io_uring_queue_exit(ring_.get());
}

bool IoRing::add(DiskRequest& request, const Disk::Plain& plain) {
  // Never more under way than the completion queue holds.
  if (under_way_ >= 2 * kEntries || request.buffers.size() > 1024) return false;
  io_uring_sqe* entry = ::io_uring_get_sqe(ring_.get());
  if (entry == nullptr) {
    submit();
    entry = ::io_uring_get_sqe(ring_.get());
    if (entry == nullptr) return false;
  }
  const unsigned count = static_cast<unsigned>(request.buffers.size());
  switch (request.kind) {
    case DiskRequest::Kind::kRead:
      ::io_uring_prep_readv(entry, plain.fd, request.buffers.data(), count, plain.offset);
      break;
    case DiskRequest::Kind::kWrite:
      ::io_uring_prep_writev(entry, plain.fd, request.buffers.data(), count, plain.offset);
      if (request.flush_after) entry->rw_flags = RWF_DSYNC;
      break;
    default:
      ::io_uring_prep_fsync(entry, plain.fd, IORING_FSYNC_DATASYNC);
  }
  ::io_uring_sqe_set_data(entry, &request);
  ++added_;
  ++under_way_;
  return true;
}

void IoRing::submit() {
  for (int tries = 0; added_ != 0; ++tries) {
    const int taken = ::io_uring_submit(ring_.get());
    if (taken > 0) {
      added_ -= std::min(added_, static_cast<unsigned>(taken));
    } else if (tries < kTries && (taken == -EINTR || taken == -EAGAIN || taken == -EBUSY)) {
      ::sched_yield();  // the kernel is short of memory
    } else {
      // They stay in the queue and go with the next ones.
      if (complaints_.allow())
        base::log_error("io_uring takes no requests: {}", std::strerror(-taken));
      return;
    }
  }
}

void IoRing::take(std::vector<DiskRequest*>& done, std::vector<DiskRequest*>& again) {
  io_uring_cqe* entry = nullptr;
  while (under_way_ != 0 && ::io_uring_peek_cqe(ring_.get(), &entry) == 0) {
    auto& request = *static_cast<DiskRequest*>(::io_uring_cqe_get_data(entry));
    const int result = entry->res;
    ::io_uring_cqe_seen(ring_.get(), entry);
    --under_way_;
    const bool data = request.kind != DiskRequest::Kind::kFlush;
    const bool whole =
        result >= 0 && (!data || static_cast<u64>(result) == total_size(request.buffers));
    (whole ? done : again).push_back(&request);
  }
}

void IoRing::wait_for_all() {
  submit();
  std::vector<DiskRequest*> ignored;
  while (under_way_ != 0) {
    io_uring_cqe* entry = nullptr;
    const int error = ::io_uring_wait_cqe(ring_.get(), &entry);
    if (error != 0 && error != -EINTR) {
      base::log_error("waiting for io_uring: {}", std::strerror(-error));
      return;
    }
    take(ignored, ignored);
  }
}

}  // namespace smol::storage

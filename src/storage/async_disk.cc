#include "storage/async_disk.h"

#include <poll.h>
#include <signal.h>

#include "base/thread.h"
#include "storage/io_ring.h"

namespace smol::storage {

AsyncDisk::AsyncDisk(std::unique_ptr<Disk> disk, AsyncMethod method)
    : disk_(std::move(disk)), method_(method) {}

Result<std::unique_ptr<AsyncDisk>> AsyncDisk::create(std::unique_ptr<Disk> disk,
                                                     AsyncMethod method) {
  auto async = std::unique_ptr<AsyncDisk>(new AsyncDisk(std::move(disk), method));
  TRY_ASSIGN(async->completed_event_, base::create_eventfd());
  return async;
}

AsyncDisk::~AsyncDisk() {
  cancel();
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wanted_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void AsyncDisk::submit(DiskRequest& request) {
  ++under_way_;
  request.result = {};
  if (!hand_to_ring(request)) hand_to_threads(request);
}

void AsyncDisk::start() {
  if (ring_) ring_->submit();
}

// --- The ring ---

bool AsyncDisk::hand_to_ring(DiskRequest& request) {
  if (method_ == AsyncMethod::kThreads || ring_failed_) return false;
  const bool data =
      request.kind == DiskRequest::Kind::kRead || request.kind == DiskRequest::Kind::kWrite;
  if (!data && request.kind != DiskRequest::Kind::kFlush) return false;
  if (request.kind != DiskRequest::Kind::kRead && disk_->read_only()) return false;
  const auto plain = disk_->plain(data ? request.offset : kSectorSize);
  if (!plain) return false;
  if (!ring_) {
    ring_ = IoRing::create(completed_event_.get());
    ring_failed_ = ring_ == nullptr;  // an older kernel, or one that forbids it: threads do it all
    if (ring_failed_) return false;
  }
  return ring_->add(request, *plain);
}

// --- Threads ---

void AsyncDisk::hand_to_threads(DiskRequest& request) {
  std::lock_guard lock(mutex_);
  waiting_.push_back(&request);
  if (waiting_.size() > sleeping_ && threads_.size() < kThreads)
    threads_.push_back(base::start_worker("disk", [this] { work(); }));
  wanted_.notify_one();
}

void AsyncDisk::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    ++sleeping_;
    wanted_.wait(lock, [this] { return stop_ || !waiting_.empty(); });
    --sleeping_;
    if (stop_) return;
    DiskRequest& request = *waiting_.front();
    waiting_.pop_front();
    ++running_;
    lock.unlock();
    execute(request);
    lock.lock();
    --running_;
    completed_.push_back(&request);
    if (completed_.size() == 1) base::signal_eventfd(completed_event_.get());
    if (running_ == 0) idle_.notify_all();
  }
}

void AsyncDisk::execute(DiskRequest& request) {
  using Kind = DiskRequest::Kind;
  Result<>& result = request.result;
  switch (request.kind) {
    case Kind::kRead:
      result = disk_->read(request.buffers, request.offset);
      break;
    case Kind::kWrite:
      result = disk_->write(request.buffers, request.offset);
      break;
    case Kind::kFlush:
      result = disk_->flush();
      break;
    case Kind::kDiscard:
    case Kind::kZero:
      for (const DiskRequest::Range& range : request.ranges) {
        result = request.kind == Kind::kZero
                     ? disk_->write_zeroes(range.offset, range.size, range.may_unmap)
                     : disk_->discard(range.offset, range.size);
        if (!result) break;
      }
      break;
  }
  if (result && request.flush_after) result = disk_->flush();
}

std::vector<DiskRequest*> AsyncDisk::take_completed() {
  base::drain_eventfd(completed_event_.get());
  std::vector<DiskRequest*> taken;
  {
    std::lock_guard lock(mutex_);
    taken.swap(completed_);
  }
  std::vector<DiskRequest*> again;
  if (ring_) ring_->take(taken, again);
  // What the ring did in part, or could not do, is done whole, with a full error text.
  for (DiskRequest* const request : again) hand_to_threads(*request);
  under_way_ -= static_cast<u32>(taken.size());
  return taken;
}

void AsyncDisk::wait(int timeout_ms) const {
  pollfd entry{.fd = completed_event_.get(), .events = POLLIN, .revents = 0};
  (void)::poll(&entry, 1, timeout_ms);  // interrupted: the caller looks again
}

void AsyncDisk::cancel() {
  {
    std::unique_lock lock(mutex_);
    waiting_.clear();
    idle_.wait(lock, [this] { return running_ == 0; });
    completed_.clear();
  }
  if (ring_) ring_->wait_for_all();
  base::drain_eventfd(completed_event_.get());
  under_way_ = 0;
}

}  // namespace smol::storage

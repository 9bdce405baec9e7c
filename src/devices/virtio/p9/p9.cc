// Chains of the 9P device and the thread that serves them; see the header.
#include "devices/virtio/p9/p9.h"

#include <pthread.h>

#include <algorithm>

#include "base/thread.h"

namespace smol::devices::virtio {

using share::Server;

Result<std::unique_ptr<P9>> P9::create(std::unique_ptr<Server> server, std::string_view tag) {
  if (tag.empty() || tag.size() > kMaxTag)
    return fail("the 9P mount tag \"{}\" must have 1 to {} bytes", tag, kMaxTag);
  auto device = std::unique_ptr<P9>(new P9(std::move(server)));
  const u16 size = static_cast<u16>(tag.size());
  device->config_.resize(sizeof(size));
  base::store(device->config_.data(), size);
  device->config_.insert(device->config_.end(), tag.begin(), tag.end());
  return device;
}

P9::~P9() {
  {
    const std::lock_guard lock(mutex());
    stop_ = true;
  }
  changed_.notify_all();
  if (worker_.joinable()) worker_.join();
}

void P9::start() {
  worker_ = base::start_worker("9p", [this] { work(); });
}

void P9::pause() {
  std::unique_lock lock(mutex());
  paused_ = true;
  changed_.wait(lock, [this] { return !busy_; });
}

void P9::resume() {
  {
    const std::lock_guard lock(mutex());
    paused_ = false;
    wake_ = true;  // for what the worker left in the queue
  }
  changed_.notify_all();
}

void P9::activate(u64, std::span<Queue> queues, DeviceHost& host) {
  queue_ = &queues[0];
  host_ = &host;
}

void P9::process_queue(u16) {
  wake_ = true;
  changed_.notify_all();
}

void P9::reset() {
  queue_ = nullptr;
  host_ = nullptr;
  std::unique_lock lock(mutex(), std::adopt_lock);
  changed_.wait(lock, [this] { return !busy_; });
  lock.release();  // the caller's
  server_->reset();
}

std::vector<Counter> P9::counters() const {
  const share::ServerCounters now = server_->counters();
  return {{"requests", now.requests},
          {"errors", now.errors},
          {"read_bytes", now.bytes_read},
          {"write_bytes", now.bytes_written}};
}

std::optional<Chain> P9::take() {
  while (queue_ != nullptr) {
    auto chain = queue_->pop();
    if (!chain) {
      queue_ = nullptr;  // nothing more until the reset
      host_->needs_reset(chain.error());
      return std::nullopt;
    }
    if (chain->has_value()) return std::move(**chain);
    if (!queue_->enable_notifications()) return std::nullopt;
  }
  return std::nullopt;
}

void P9::work() {
  if (const auto ready = Server::prepare_thread(); !ready)
    base::log_error("virtio-9p: {}", ready.error().chain());
  std::unique_lock lock(mutex());
  for (;;) {
    changed_.wait(lock, [this] { return stop_ || (wake_ && !paused_ && queue_ != nullptr); });
    if (stop_) return;
    wake_ = false;
    while (!paused_) {
      auto chain = take();
      if (!chain) break;
      Queue* const queue = queue_;
      queue->disable_notifications();
      busy_ = true;
      lock.unlock();
      const Result<u32> written = serve(*chain, queue->memory());
      lock.lock();
      busy_ = false;
      changed_.notify_all();
      if (queue_ == nullptr) break;  // reset meanwhile: the chain is of another life
      if (!written) {
        queue_ = nullptr;
        host_->needs_reset(written.error());
        break;
      }
      queue_->push(std::move(*chain), *written);
      if (queue_->should_notify()) host_->notify_used(0);
    }
  }
}

Result<u32> P9::serve(const Chain& chain, GuestMemory& memory) {
  constexpr std::size_t kMessageType = 4;
  Reader reader(chain);
  Writer writer(chain, memory);
  if (reader.remaining() < share::kHeaderSize || writer.remaining() < share::kErrorReplySize)
    return fail("a 9P request of {} bytes with room for {}", reader.remaining(),
                writer.remaining());
  request_.resize(share::kHeaderSize);
  reader.read(ByteSpan(request_));
  const auto type = static_cast<share::Type>(request_[kMessageType]);
  // Only a write's data stays where it is.
  const u64 head =
      type == share::Type::kWrite ? u64{share::kWriteRequestHead} : u64{Server::kMaxRequestHead};
  request_.resize(share::kHeaderSize + std::min(reader.remaining(), head - share::kHeaderSize));
  reader.read(ByteSpan(request_).subspan(share::kHeaderSize));
  data_.clear();
  if (type == share::Type::kWrite) reader.describe(Server::kMaxMessage, data_);
  room_.clear();
  if (type == share::Type::kRead) {
    Writer behind = writer;
    behind.skip(share::kReadReplyHead);
    behind.describe(Server::kMaxMessage, room_);
  }
  const share::Reply reply = server_->serve(
      {.message = request_, .data = data_},
      {.size = static_cast<u32>(std::min<u64>(writer.remaining(), Server::kMaxMessage)),
       .data = room_});
  writer.write_some(reply.head);
  writer.commit(reply.data);
  return writer.written();
}

}  // namespace smol::devices::virtio

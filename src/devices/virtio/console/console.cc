// Both directions of the console; see the header for what is buffered and why.
#include "devices/virtio/console/console.h"

#include <poll.h>

#include "base/check.h"

namespace smol::devices::virtio {
namespace {

constexpr int kChainsPerTurn = 256;

}  // namespace

Result<std::unique_ptr<Console>> Console::create(base::EventLoop& loop,
                                                 std::unique_ptr<ConsoleBackend> backend,
                                                 ConsoleSize size) {
  auto console = std::unique_ptr<Console>(new Console(loop, std::move(backend)));
  console->config_.columns = size.columns;
  console->config_.rows = size.rows;
  console->output_.reserve(kOutputBuffer);
  const int input = console->backend_->input_fd();
  CHECK(input < 0 || input != console->backend_->output_fd());
  return console;
}

Console::~Console() {
  std::lock_guard lock(mutex());
  watch_input(false);
  watch_output(false);
}

void Console::resize(ConsoleSize size) {
  std::lock_guard lock(mutex());
  if (config_.columns == size.columns && config_.rows == size.rows) return;
  config_.columns = size.columns;
  config_.rows = size.rows;
  if (host_ != nullptr && (features_ & kFeatureSize) != 0) host_->notify_config();
}

void Console::read_config(u64 offset, ByteSpan data) {
  read_config_bytes(base::bytes_of(config_), offset, data);
}

void Console::activate(u64 features, std::span<Queue> queues, DeviceHost& host) {
  features_ = features;
  queues_ = queues;
  host_ = &host;
}

void Console::reset() {
  // Bytes that were taken from the guest are still written.
  watch_input(false);
  pending_ = Chain();
  has_pending_ = false;
  queues_ = {};
  host_ = nullptr;
  features_ = 0;
}

void Console::broken(const Error& error) {
  watch_input(false);
  DeviceHost* const host = host_;
  host_ = nullptr;  // no more work until the reset
  host->needs_reset(error);
}

void Console::process_queue(u16 queue) {
  if (host_ == nullptr) return;
  if (queue == kReceiveQueue) return receive();
  transmit();
  drain();
}

// --- Host to guest ---

void Console::receive() {
  Queue& queue = queues_[kReceiveQueue];
  for (int served = 0; !input_ended_; ++served) {
    if (served == kChainsPerTurn) {
      host_->schedule(kReceiveQueue);
      break;
    }
    auto chain = queue.pop();
    if (!chain) return broken(chain.error());
    if (!chain->has_value()) {
      if (queue.enable_notifications()) continue;
      watch_input(false);  // until the driver gives more buffers
      break;
    }
    Writer writer(**chain, queue.memory());
    const ByteSpan into = writer.peek(kPageSize);
    if (into.empty()) {  // nothing writable in it
      queue.push(std::move(**chain), 0);
      continue;
    }
    const auto got = backend_->read(into);
    if (got && got->has_value() && **got != 0) {
      writer.commit(**got);
      received_bytes_ += **got;
      ++received_ops_;
      queue.push(std::move(**chain), writer.written());
      continue;
    }
    queue.undo_pop(std::move(**chain));
    if (got && !got->has_value()) {
      watch_input(true);
      break;
    }
    if (!got) base::log_warn("virtio-console: {}; input ends here", got.error().chain());
    input_ended_ = true;
    watch_input(false);
  }
  if (queue.should_notify()) host_->notify_used(kReceiveQueue);
}

void Console::input_ready() {
  std::lock_guard lock(mutex());
  if (host_ == nullptr || !input_watched_) return;
  receive();
}

// --- Guest to host ---

void Console::transmit() {
  Queue& queue = queues_[kTransmitQueue];
  for (int served = 0;; ++served) {
    if (served == kChainsPerTurn) {
      host_->schedule(kTransmitQueue);
      break;
    }
    if (!has_pending_) {
      auto chain = queue.pop();
      if (!chain) return broken(chain.error());
      if (!chain->has_value()) {
        if (queue.enable_notifications()) continue;
        break;
      }
      pending_ = std::move(**chain);
      pending_done_ = 0;
      has_pending_ = true;
    }
    Reader reader(pending_);
    reader.skip(pending_done_);
    if (buffered() == 0) output_.clear(), output_start_ = 0;
    const std::size_t room = kOutputBuffer - std::min(kOutputBuffer, output_.size());
    const std::size_t count = std::min<u64>(room, reader.remaining());
    const std::size_t at = output_.size();
    output_.resize(at + count);
    reader.read_some(ByteSpan(output_).subspan(at));
    pending_done_ += count;
    sent_bytes_ += count;
    if (reader.remaining() != 0) {
      drain();
      if (buffered() != 0) break;  // the rest waits for the host's reader
      continue;
    }
    has_pending_ = false;
    ++sent_ops_;
    queue.push(std::move(pending_), 0);
  }
  if (queue.should_notify()) host_->notify_used(kTransmitQueue);
}

void Console::drain() {
  while (buffered() != 0 && !output_gone_) {
    const auto put = backend_->write(ConstByteSpan(output_).subspan(output_start_));
    if (!put) {
      base::log_error("virtio-console: {}; further output is thrown away", put.error().chain());
      output_gone_ = true;
      break;
    }
    if (*put == 0) break;
    output_start_ += *put;
  }
  if (output_gone_) output_start_ = output_.size();
  if (buffered() == 0) output_.clear(), output_start_ = 0;
  watch_output(buffered() != 0);
}

void Console::output_ready() {
  std::lock_guard lock(mutex());
  if (!output_watched_) return;
  drain();
  if (host_ != nullptr && has_pending_ && buffered() == 0) {
    transmit();
    drain();
  }
}

void Console::flush(int timeout_ms) {
  std::lock_guard lock(mutex());
  if (host_ != nullptr) transmit();
  drain();
  while (buffered() != 0) {
    pollfd entry{.fd = backend_->output_fd(), .events = POLLOUT, .revents = 0};
    if (::poll(&entry, 1, timeout_ms) <= 0) return;
    const std::size_t before = buffered();
    drain();
    if (host_ != nullptr && has_pending_ && buffered() == 0) transmit(), drain();
    if (buffered() == before) return;
  }
}

std::vector<Counter> Console::counters() const {
  return {{"rx_bytes", received_bytes_},
          {"rx_ops", received_ops_},
          {"tx_bytes", sent_bytes_},
          {"tx_ops", sent_ops_}};
}

// --- Watches ---

void Console::watch_input(bool on) {
  const int fd = backend_->input_fd();
  if (fd < 0 || on == input_watched_) return;
  if (!on) {
    loop_.remove(fd);
    input_watched_ = false;
    return;
  }
  const auto added = loop_.add(fd, EPOLLIN, [this](u32) { input_ready(); });
  if (!added) {
    base::log_error("virtio-console: cannot wait for input: {}", added.error().chain());
    input_ended_ = true;
    return;
  }
  input_watched_ = true;
}

void Console::watch_output(bool on) {
  const int fd = backend_->output_fd();
  if (fd < 0 || on == output_watched_) return;
  if (!on) {
    loop_.remove(fd);
    output_watched_ = false;
    return;
  }
  const auto added = loop_.add(fd, EPOLLOUT, [this](u32) { output_ready(); });
  if (!added) {
    base::log_error("virtio-console: cannot wait for the output: {}", added.error().chain());
    output_gone_ = true;
    return;
  }
  output_watched_ = true;
}

}  // namespace smol::devices::virtio

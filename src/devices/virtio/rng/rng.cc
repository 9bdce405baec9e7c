// See the header for where the bytes come from.
#include "devices/virtio/rng/rng.h"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

namespace smol::devices::virtio {
namespace {

constexpr int kChainsPerTurn = 64;

}  // namespace

Result<std::unique_ptr<Rng>> Rng::create(base::EventLoop& loop, const std::string& source) {
  auto rng = std::unique_ptr<Rng>(new Rng(loop));
  if (source.empty()) return rng;
  rng->source_name_ = source;
  auto opened = base::open_file(source, O_RDONLY | O_NONBLOCK);
  if (!opened) return wrap(opened.error(), "cannot use {} as the source of entropy", source);
  struct stat status{};
  if (::fstat(opened->get(), &status) != 0) return fail_errno("cannot stat {}", source);
  if (S_ISDIR(status.st_mode))
    return fail("cannot use {} as the source of entropy: it is a directory", source);
  rng->source_ = std::move(*opened);
  return rng;
}

Rng::~Rng() {
  if (watching_) loop_.remove(source_.get());
}

void Rng::activate(u64 features, std::span<Queue> queues, DeviceHost& host) {
  queue_ = &queues[0];
  host_ = &host;
}

void Rng::reset() {
  queue_ = nullptr;
  host_ = nullptr;
  if (std::exchange(watching_, false)) loop_.remove(source_.get());
}

Rng::Fill Rng::fill(Writer& writer) {
  u64 left = std::min(writer.remaining(), kMaxRequest);
  while (left != 0) {
    const ByteSpan run = writer.peek(left);
    const ssize_t got = source_.valid() ? ::read(source_.get(), run.data(), run.size())
                                        : ::getrandom(run.data(), run.size(), 0);
    if (got > 0) {
      writer.commit(static_cast<u64>(got));
      left -= static_cast<u64>(got);
      continue;
    }
    if (got < 0 && errno == EINTR) continue;
    if (writer.written() != 0) return Fill::kDone;
    if (got < 0 && errno == EAGAIN) return Fill::kWait;
    base::log_error(
        "virtio-rng: {} gives no more bytes ({}); the guest gets no more entropy from it",
        source_.valid() ? source_name_ : "getrandom",
        got == 0 ? "end of file" : std::strerror(errno));
    return Fill::kEnd;
  }
  return Fill::kDone;
}

void Rng::process_queue(u16) {
  if (queue_ == nullptr || watching_) return;
  for (int served = 0; !ended_; ++served) {
    if (served == kChainsPerTurn) {
      host_->schedule(0);
      break;
    }
    auto chain = queue_->pop();
    if (!chain) return host_->needs_reset(chain.error());
    if (!chain->has_value()) {
      if (queue_->enable_notifications()) continue;
      break;
    }
    Writer writer(**chain, queue_->memory());
    const Fill result = fill(writer);
    if (result != Fill::kDone) {
      queue_->undo_pop(std::move(**chain));
      if (result == Fill::kWait) wait_for_source();
      ended_ = result == Fill::kEnd;
      break;
    }
    given_bytes_ += writer.written();
    ++given_ops_;
    queue_->push(std::move(**chain), writer.written());
  }
  if (queue_->should_notify()) host_->notify_used(0);
}

std::vector<Counter> Rng::counters() const {
  return {{"read_bytes", given_bytes_}, {"read_ops", given_ops_}};
}

void Rng::wait_for_source() {
  const auto added = loop_.add(source_.get(), EPOLLIN, [this](u32) { source_readable(); });
  if (!added) {
    base::log_error("virtio-rng: cannot wait for {}: {}", source_name_, added.error().chain());
    ended_ = true;
    return;
  }
  watching_ = true;
}

void Rng::source_readable() {
  std::lock_guard lock(mutex());
  if (!std::exchange(watching_, false)) return;
  loop_.remove(source_.get());
  process_queue(0);
}

}  // namespace smol::devices::virtio

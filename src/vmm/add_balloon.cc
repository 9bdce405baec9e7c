// The memory balloon.
#include "devices/virtio/balloon/balloon.h"
#include "vmm/machine.h"

namespace smol::vmm {

Result<> Machine::add_balloon() {
  if (!config_.balloon) return {};
  auto balloon = std::make_unique<devices::virtio::Balloon>(
      config_.balloon->size, devices::virtio::Balloon::Options{
                                 .deflate_on_oom = config_.balloon->deflate_on_oom,
                                 .free_page_reporting = config_.balloon->free_page_reporting});
  balloon_ = balloon.get();
  return add_virtio(std::move(balloon));
}

Result<> Machine::set_balloon(u64 bytes) {
  if (balloon_ == nullptr)
    return fail("cannot set the balloon: the machine was started without --balloon");
  if (bytes >= config_.memory_size)
    return fail("a balloon of {} bytes would leave nothing of {} bytes of memory", bytes,
                config_.memory_size);
  balloon_->set_target(bytes);
  return {};
}

void Machine::ask_guest_memory() {
  constexpr int kPatienceMs = 250;  // main waits, which a guest must not hold up
  if (balloon_ != nullptr && !paused() && !ended()) balloon_->refresh_figures(kPatienceMs);
}

u64 Machine::memory_actual_size() const {
  const u64 given_up = balloon_ == nullptr ? 0 : balloon_->actual();
  return config_.memory_size - std::min(given_up, config_.memory_size);
}

}  // namespace smol::vmm

// The control queue (virtio 1.2, 5.1.6.5): commands that are answered with one byte.
#include "devices/virtio/net/net.h"

namespace smol::devices::virtio {

using namespace net_wire;

namespace {

constexpr int kCommandsPerTurn = 64;
// Two full tables with room to spare; what is longer is refused before it is copied.
constexpr u64 kLargestTable = 64 * kKiB;

}  // namespace

void Net::process_control() {
  for (int served = 0;; ++served) {
    if (served == kCommandsPerTurn) {
      host_->schedule(control_index());
      break;
    }
    auto chain = control_->pop();
    if (!chain) return broken(chain.error());
    if (!chain->has_value()) {
      if (control_->enable_notifications()) continue;
      break;
    }
    if ((*chain)->readable_size() < sizeof(ControlHeader) || (*chain)->writable_size() < 1)
      return broken(Error(fmt::format(
          "a control command of {} readable and {} writable bytes (2 and 1 are the least)",
          (*chain)->readable_size(), (*chain)->writable_size())));
    Reader reader(**chain);
    const u8 answer = control(reader) ? kAckOk : kAckError;
    Writer writer(**chain, control_->memory());
    writer.write(answer);
    control_->push(std::move(**chain), writer.written());
    if (broken_) return;
  }
  if (control_->should_notify()) host_->notify_used(control_index());
}

bool Net::control(Reader& reader) {
  ControlHeader header;
  reader.read(header);
  switch (header.class_id) {
    case kReceiveMode:
      return control_receive_mode(header.command, reader);
    case kMacTable:
      return control_mac(header.command, reader);
    case kAnnounce:
      if (!has(kGuestAnnounce) || header.command != 0) return false;
      announcing_ = false;
      return true;
    case kQueues:
      return control_queues(header.command, reader);
    case kOffloads:
      return control_offloads(header.command, reader);
    default:
      return false;  // VLAN filters among them
  }
}

bool Net::control_receive_mode(u8 command, Reader& reader) {
  u8 on = 0;
  const u64 needed = command <= kAllMulticast ? kControlReceive : kControlReceiveExtra;
  if (!has(needed) || reader.remaining() != 1 || !reader.read(on) || on > 1) return false;
  return filter_.set_mode(static_cast<ReceiveCommand>(command), on == 1);
}

bool Net::control_mac(u8 command, Reader& reader) {
  if (command == kTableSet) {
    if (!has(kControlReceive) || reader.remaining() > kLargestTable) return false;
    std::vector<u8> table(reader.remaining());
    reader.read(ByteSpan(table));
    return filter_.set_table(table);
  }
  Mac mac{};
  if (command != kAddressSet || !has(kControlMac) || reader.remaining() != mac.size() ||
      !reader.read(mac))
    return false;
  if ((mac[0] & 1) != 0 || mac == Mac{}) return false;
  filter_.set_mac(mac);
  return true;
}

bool Net::control_queues(u8 command, Reader& reader) {
  u16 pairs = 0;
  if (command != 0 || !has(kMultiqueue) || reader.remaining() != 2 || !reader.read(pairs))
    return false;
  if (pairs == 0 || pairs > options_.queue_pairs) return false;
  if (std::exchange(active_pairs_, pairs) != pairs) backend_->pairs_changed();
  // The backend may have waited for buffers of a pair that is now out of use.
  for (std::size_t i = pairs; i < pairs_.size(); ++i)
    if (pairs_[i].starved) host_->schedule(static_cast<u16>(2 * i));
  return true;
}

bool Net::control_offloads(u8 command, Reader& reader) {
  u64 wanted = 0;
  if (command != 0 || !has(kControlGuestOffloads) || reader.remaining() != sizeof(wanted) ||
      !reader.read(wanted))
    return false;
  if ((wanted & ~(features_ & kGuestOffloadFeatures)) != 0) return false;
  guest_offloads_ = wanted;
  backend_->offloads_changed();
  return true;
}

}  // namespace smol::devices::virtio

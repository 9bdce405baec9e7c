// The device's life, features and configuration. Receiving, sending and control have files of their
// own.
#include "devices/virtio/net/net.h"

#include "base/check.h"

namespace smol::devices::virtio {

using namespace net_wire;

namespace {

constexpr u16 kControlQueueSize = 64;

// What the backend takes from the guest, as features.
u64 transmit_features(const net::GuestOffloads& accepts) {
  if (!accepts.checksum) return 0;
  u64 features = kChecksum;
  if (accepts.tso4) features |= kHostTso4;
  if (accepts.tso6) features |= kHostTso6;
  if (accepts.ecn && (accepts.tso4 || accepts.tso6)) features |= kHostEcn;
  if (accepts.ufo) features |= kHostUfo;
  return features;
}

}  // namespace

Net::Net(base::EventLoop& loop, std::unique_ptr<net::Backend> backend, const NetOptions& options)
    : backend_(std::move(backend)),
      options_(options),
      loop_(loop),
      receive_limit_(options.rate_limit),
      transmit_limit_(options.rate_limit) {
  offered_ = kMac | kStatus | kControlQueue | kControlReceive | kControlReceiveExtra | kControlMac |
             kGuestAnnounce | kMergeableBuffers | kControlGuestOffloads | kGuestOffloadFeatures |
             transmit_features(backend_->accepts());
  if (options.mtu != 0) offered_ |= kMtu;
  if (options.queue_pairs > 1) offered_ |= kMultiqueue;
  queue_sizes_.assign(2u * options.queue_pairs, options.queue_size);
  queue_sizes_.push_back(kControlQueueSize);
  filter_.set_mac(options_.mac);
}

Result<std::unique_ptr<Net>> Net::create(base::EventLoop& loop,
                                         std::unique_ptr<net::Backend> backend,
                                         const NetOptions& options) {
  CHECK(options.queue_pairs >= 1 && options.queue_pairs <= kMostPairs);
  auto device = std::unique_ptr<Net>(new Net(loop, std::move(backend), options));
  TRY(device->create_timers());
  return device;
}

Result<> Net::create_timers() {
  TRY_ASSIGN(owed_timer_, base::Timer::create(loop_, [this] { owed_timer(); }));
  if (!options_.rate_limit.limits()) return {};
  TRY_ASSIGN(receive_timer_, base::Timer::create(loop_, [this] { receive_timer(); }));
  TRY_ASSIGN(transmit_timer_, base::Timer::create(loop_, [this] {
               const std::lock_guard lock(VirtioDevice::mutex());
               if (host_ != nullptr) transmit_again();
             }));
  return {};
}

Net::~Net() { reset(); }

bool Net::accept_features(u64 features) {
  // 5.1.3.1: what needs what.
  struct Dependency {
    u64 feature, one_of;
  };
  constexpr Dependency kDependencies[] = {
      {kGuestTso4, kGuestChecksum},
      {kGuestTso6, kGuestChecksum},
      {kGuestEcn, kGuestTso4 | kGuestTso6},
      {kHostTso4, kChecksum},
      {kHostTso6, kChecksum},
      {kHostEcn, kHostTso4 | kHostTso6},
      {kHostUfo, kChecksum},
      {kControlReceive, kControlQueue},
      {kControlReceiveExtra, kControlReceive},
      {kGuestAnnounce, kControlQueue},
      {kMultiqueue, kControlQueue},
      {kControlMac, kControlQueue},
      {kControlGuestOffloads, kControlQueue},
  };
  for (const Dependency& dependency : kDependencies)
    if ((features & dependency.feature) != 0 && (features & dependency.one_of) == 0) return false;
  return true;
}

void Net::read_config(u64 offset, ByteSpan data) {
  Config config;
  std::memcpy(config.mac, filter_.mac().data(), sizeof(config.mac));
  config.status =
      static_cast<u16>((link_up_ ? kStatusLinkUp : 0) | (announcing_ ? kStatusAnnounce : 0));
  config.max_queue_pairs = options_.queue_pairs;
  config.mtu = options_.mtu;
  read_config_bytes(base::bytes_of(config), offset, data);
}

void Net::activate(u64 features, std::span<Queue> queues, DeviceHost& host) {
  features_ = features;
  guest_offloads_ = features & kGuestOffloadFeatures;
  host_ = &host;
  pairs_.resize(has(kMultiqueue) ? options_.queue_pairs : 1);
  for (std::size_t i = 0; i < pairs_.size(); ++i) {
    pairs_[i].receive = &queues[2 * i];
    pairs_[i].transmit = &queues[2 * i + 1];
    pairs_[i].receive->disable_notifications();
  }
  if (has(kControlQueue)) control_ = &queues[control_index()];
  if (const auto attached = backend_->attach(*this); !attached) broken(attached.error());
}

void Net::reset() {
  if (host_ != nullptr) backend_->detach();
  host_ = nullptr;
  control_ = nullptr;
  pairs_.clear();
  features_ = guest_offloads_ = 0;
  active_pairs_ = 1;
  steered_ = transmit_pair_ = 0;
  broken_ = receive_held_back_ = announcing_ = false;
  reserved_pair_ = nullptr;
  reserved_ = 0;
  filter_ = ReceiveFilter();
  filter_.set_mac(options_.mac);
  owed_timer_runs_ = false;
  if (owed_timer_) owed_timer_->disarm();
  if (receive_timer_) receive_timer_->disarm();
  if (transmit_timer_) transmit_timer_->disarm();
}

void Net::broken(const Error& reason) {
  broken_ = true;
  host_->needs_reset(reason);
}

void Net::process_queue(u16 queue) {
  if (host_ == nullptr || broken_) return;
  if (control_ != nullptr && queue == control_index()) return process_control();
  if (queue / 2u >= pairs_.size()) return;
  if (queue % 2 == 0) return process_receive(pairs_[queue / 2]);
  process_transmit(queue);
}

void Net::set_link(bool up) {
  if (std::exchange(link_up_, up) == up || host_ == nullptr || broken_) return;
  if (has(kStatus)) host_->notify_config();
  if (!up) return;
  pairs_[0].starved = true;  // what reserve() refused meanwhile
  host_->schedule(0);
}

void Net::announce() {
  if (host_ == nullptr || broken_ || !has(kGuestAnnounce)) return;
  announcing_ = true;
  host_->notify_config();
}

std::vector<Counter> Net::counters() const {
  std::vector<Counter> all = {{"rx_bytes", received_bytes_},     {"rx_frames", received_frames_},
                              {"rx_dropped", received_dropped_}, {"tx_bytes", sent_bytes_},
                              {"tx_frames", sent_frames_},       {"tx_dropped", sent_dropped_}};
  if (options_.queue_pairs > 1) {
    all.push_back({"rx_frames_other_pairs", received_elsewhere_});
    all.push_back({"tx_frames_other_pairs", sent_elsewhere_});
  }
  return all;
}

}  // namespace smol::devices::virtio

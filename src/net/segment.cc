// The switch: who is there, where frames go, and what waits.
#include "net/segment.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <list>
#include <unordered_map>

#include "base/log.h"
#include "net/flow_pairs.h"
#include "net/offload.h"
#include "net/segment_socket.h"

namespace smol::net {
namespace {

constexpr int kFramesPerTurn = 64;
constexpr u64 kPatienceNs = 20'000'000;  // how long a member that does not read holds a sender up
constexpr std::size_t kMostLearned = 1024;
constexpr std::size_t kMostMembers = 1024;

u64 key_of(const u8* mac) {
  u64 key = 0;
  std::memcpy(&key, mac, 6);
  return key;
}

// The first bytes of a frame in pieces.
template <std::size_t kSize>
std::size_t copy_start(std::span<const iovec> frame, std::array<u8, kSize>& into) {
  std::size_t done = 0;
  for (const iovec& piece : frame) {
    const std::size_t count = std::min(piece.iov_len, kSize - done);
    std::memcpy(into.data() + done, piece.iov_base, count);
    done += count;
    if (done == kSize) break;
  }
  return done;
}

// Another machine. `out` is our connection to it, `in` is its to us.
struct Member {
  MacAddress mac{};
  u32 ip = 0;
  std::string name;
  base::UniqueFd out, in;
  u32 out_events = 0, in_events = 0;  // what the loop waits for
  bool stalled = false;               // does not read: frames to it are dropped until it does
  bool introduced = false;            // its hello came
  bool waits_for_room = false;        // our guest gave no room for its frame
};

class Segment final : public Backend {
 public:
  static Result<std::unique_ptr<Backend>> create(base::EventLoop& loop,
                                                 const SegmentOptions& options) {
    auto segment = std::unique_ptr<Segment>(new Segment(loop, options));
    TRY_ASSIGN(segment->place_, SegmentPlace::take(options.directory, options.mac));
    TRY_ASSIGN(segment->patience_,
               base::Timer::create(loop, [self = segment.get()] { self->patience_ended(); }));
    return std::unique_ptr<Backend>(std::move(segment));
  }
  ~Segment() override {
    if (mutex_ != nullptr) loop_.remove(place_->fd());
    for (Member& member : members_) {
      withdraw(member);
      close(member);
    }
    if (options_.names && !options_.name.empty())
      options_.names->remove(options_.name, options_.ip);
  }

  std::string name() const override { return fmt::format("segment {}", options_.directory); }
  GuestOffloads accepts() const override {
    return {.checksum = true, .tso4 = true, .tso6 = true, .ufo = false, .ecn = true};
  }
  Result<> attach(FrameSink& sink) override;
  void detach() override { sink_ = nullptr; }
  Transmit transmit(std::span<const iovec> frame, const OffloadHeader& offload) override;
  void transmit_done() override { sink_->flush(); }
  void room_again() override;

 private:
  Segment(base::EventLoop& loop, const SegmentOptions& options);
  using Where = std::list<Member>::iterator;

  // Connections.
  void accept_all();
  void connect_to(Where member);
  Where find_or_add(const MacAddress& mac);
  void forget(Where member);
  void close(Member& member);
  // Its name among those that the machine's other name servers give.
  void introduce(Member& member, const SegmentHello& hello);
  void withdraw(const Member& member);
  void watch_out(Where member, u32 events);
  void watch_in(Where member, u32 events);
  void in_ready(Where member);
  void read_frames(Where member);
  void out_ready(Where member, u32 events);
  void patience_ended();

  // Frames.
  bool serve_locally(std::span<const iovec> frame, std::span<const u8> start);
  Transmit send_to(Where member, bool may_wait);
  enum class Got { kFrame, kNothing, kNoRoom, kGone };
  Got receive_one(Where member);
  Got receive_hello(Where member);
  void receive_plain(ConstByteSpan message);
  void steer_next(int fd);
  ssize_t receive_message(int fd, std::span<const iovec> room);
  void learn(Where member, std::span<const iovec> frame);
  bool takes_everything() const {
    const GuestOffloads offloads = sink_->offloads();
    return offloads.checksum && offloads.tso4 && offloads.tso6 && offloads.ecn;
  }

  base::EventLoop& loop_;
  const SegmentOptions options_;
  std::unique_ptr<SegmentPlace> place_;
  std::unique_ptr<base::Timer> patience_;
  SegmentServices services_;
  std::mutex* mutex_ = nullptr;  // the device's, which owns us; set by the first attach
  FrameSink* sink_ = nullptr;
  std::list<Member> members_;               // a list: callbacks keep iterators
  std::unordered_map<u64, Where> by_mac_;   // members by their own MAC
  std::unordered_map<u64, Where> learned_;  // addresses seen behind members (bridges in guests)
  Where waiting_for_;                       // the member that a frame waits for
  bool waiting_ = false;
  FlowPairs flows_;
  OffloadHeader header_;
  std::vector<iovec> buffers_;
  std::vector<u8> whole_;  // a message, when the guest cannot take all that may come
};

Segment::Segment(base::EventLoop& loop, const SegmentOptions& options)
    : loop_(loop),
      options_(options),
      services_(
          {.mac = options.mac,
           .guest_ip = options.ip,
           .name = options.name,
           .mtu = options.mtu,
           .gives_dns = options.names == nullptr},
          [this](std::string_view wanted) -> std::optional<u32> {
            if (wanted == options_.name && options_.ip != 0) return options_.ip;
            for (const Member& member : members_)
              if (member.introduced && member.ip != 0 && member.name == wanted) return member.ip;
            return std::nullopt;
          },
          [this](u32 address) -> std::optional<std::string> {
            if (address == options_.ip && !options_.name.empty()) return options_.name;
            for (const Member& member : members_)
              if (member.introduced && member.ip == address && !member.name.empty())
                return member.name;
            return std::nullopt;
          }) {
  if (options_.names && !options_.name.empty()) options_.names->add(options_.name, options_.ip);
}

Result<> Segment::attach(FrameSink& sink) {
  sink_ = &sink;
  waiting_ = false;
  if (mutex_ != nullptr) return {};  // a reset of the guest's driver: the connections have stayed
  mutex_ = &sink.mutex();
  TRY(loop_.add(place_->fd(), EPOLLIN, [this](u32) {
    const std::lock_guard lock(*mutex_);
    accept_all();
  }));
  for (const MacAddress& mac : place_->others()) connect_to(find_or_add(mac));
  return {};
}

// --- Connections ---

Segment::Where Segment::find_or_add(const MacAddress& mac) {
  if (const auto found = by_mac_.find(key_of(mac.data())); found != by_mac_.end())
    return found->second;
  const Where member = members_.emplace(members_.end());
  member->mac = mac;
  by_mac_[key_of(mac.data())] = member;
  return member;
}

void Segment::connect_to(Where member) {
  member->out = place_->connect(member->mac);
  if (!member->out.valid()) {
    if (!member->in.valid()) forget(member);
    return;
  }
  SegmentHello hello;
  hello.ip = options_.ip;
  hello.mac = options_.mac;
  options_.name.copy(hello.name, sizeof(hello.name) - 1);
  ::send(member->out.get(), &hello, sizeof(hello), MSG_NOSIGNAL);
  member->stalled = false;
  member->out_events = 0;
  // Its end is told as a hang-up, whatever is waited for.
  if (const auto added = loop_.add(member->out.get(), 0,
                                   [this, member](u32 events) { out_ready(member, events); });
      !added) {
    base::log_warn("{}: {}", name(), added.error().chain());
    member->out.reset();
  }
}

void Segment::accept_all() {
  while (true) {
    base::UniqueFd fd = place_->accept();
    if (!fd.valid()) return;
    if (members_.size() >= kMostMembers) continue;
    const Where member = members_.emplace(members_.end());  // a stranger until its hello
    member->in = std::move(fd);
    member->in_events = EPOLLIN;
    if (const auto added =
            loop_.add(member->in.get(), EPOLLIN, [this, member](u32) { in_ready(member); });
        !added) {
      base::log_warn("{}: {}", name(), added.error().chain());
      members_.erase(member);
    }
  }
}

void Segment::close(Member& member) {
  for (base::UniqueFd* const fd : {&member.in, &member.out}) {
    if (fd->valid()) loop_.remove(fd->get());
    fd->reset();
  }
}

void Segment::introduce(Member& member, const SegmentHello& hello) {
  withdraw(member);
  member.introduced = true;
  member.ip = hello.ip;
  member.name = hello.name;
  if (options_.names && member.ip != 0 && !member.name.empty())
    options_.names->add(member.name, member.ip);
}

void Segment::withdraw(const Member& member) {
  if (options_.names && member.introduced) options_.names->remove(member.name, member.ip);
}

void Segment::forget(Where member) {
  withdraw(*member);
  close(*member);
  if (const auto found = by_mac_.find(key_of(member->mac.data()));
      found != by_mac_.end() && found->second == member)
    by_mac_.erase(found);
  std::erase_if(learned_, [&](const auto& entry) { return entry.second == member; });
  if (waiting_ && waiting_for_ == member) {
    waiting_ = false;
    if (sink_ != nullptr) sink_->transmit_again();
  }
  members_.erase(member);
}

void Segment::watch_out(Where member, u32 events) {
  if (std::exchange(member->out_events, events) != events)
    (void)loop_.modify(member->out.get(), events);
}
void Segment::watch_in(Where member, u32 events) {
  if (std::exchange(member->in_events, events) != events)
    (void)loop_.modify(member->in.get(), events);
}

void Segment::out_ready(Where member, u32 events) {
  const std::lock_guard lock(*mutex_);
  if ((events & (EPOLLHUP | EPOLLERR)) != 0) {
    // It ended, or closed a connection that it had twice. Its own connection to us tells which.
    loop_.remove(member->out.get());
    member->out.reset();
    if (!member->in.valid()) forget(member);
    return;
  }
  watch_out(member, 0);
  member->stalled = false;
  if (!waiting_ || waiting_for_ != member) return;
  waiting_ = false;
  patience_->disarm();
  if (sink_ != nullptr) sink_->transmit_again();
}

void Segment::patience_ended() {
  if (mutex_ == nullptr) return;
  const std::lock_guard lock(*mutex_);
  if (!std::exchange(waiting_, false)) return;
  waiting_for_->stalled = true;  // until it reads again: out_ready()
  if (sink_ != nullptr) sink_->transmit_again();
}

void Segment::in_ready(Where member) {
  const std::lock_guard lock(*mutex_);
  read_frames(member);
  if (sink_ != nullptr) sink_->flush();
}

// The member may be gone afterwards.
void Segment::read_frames(Where member) {
  for (int frames = 0; frames < kFramesPerTurn; ++frames) {
    const bool introduced = member->introduced;
    const Got got = introduced ? receive_one(member) : receive_hello(member);
    if (got == Got::kGone) return forget(member);
    if (got == Got::kNoRoom) {
      member->waits_for_room = true;
      return watch_in(member, 0);
    }
    if (got == Got::kNothing) break;
  }
  watch_in(member, EPOLLIN);
}

// The stranger's connection goes to the member that it says it is.
Segment::Got Segment::receive_hello(Where stranger) {
  SegmentHello hello;
  const ssize_t got = ::recv(stranger->in.get(), &hello, sizeof(hello), MSG_DONTWAIT | MSG_TRUNC);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return Got::kNothing;
  if (got != sizeof(hello) || !hello.sound() || hello.mac == options_.mac) return Got::kGone;
  const Where member = find_or_add(hello.mac);
  if (member->in.valid()) {  // it came back before its end was seen
    loop_.remove(member->in.get());
    member->in.reset();
  }
  loop_.remove(stranger->in.get());
  member->in = std::move(stranger->in);
  member->in_events = EPOLLIN;
  member->waits_for_room = false;
  introduce(*member, hello);
  const auto added =
      loop_.add(member->in.get(), EPOLLIN, [this, member](u32) { in_ready(member); });
  if (!added) base::log_warn("{}: {}", name(), added.error().chain());
  // A connection of ours to its earlier life would end in nowhere.
  if (member->out.valid()) {
    char nothing = 0;
    const ssize_t state = ::recv(member->out.get(), &nothing, 1, MSG_DONTWAIT | MSG_PEEK);
    if (state == 0 || (state < 0 && errno != EAGAIN)) {
      loop_.remove(member->out.get());
      member->out.reset();
    }
  }
  if (!member->out.valid()) connect_to(member);
  return Got::kGone;  // the stranger's entry
}

// --- To others ---

Transmit Segment::transmit(std::span<const iovec> frame, const OffloadHeader& offload) {
  std::array<u8, FlowPairs::kStart> start{};
  const std::size_t known = copy_start(frame, start);
  if (known < kEthernetHeader) return Transmit::kDone;
  if (sink_->pairs() > 1) flows_.sent(std::span(start).first(known), sink_->transmit_pair());
  if (serve_locally(frame, std::span(start).first(known))) return Transmit::kDone;
  header_ = offload;
  buffers_.assign(1, {&header_, sizeof(header_)});
  buffers_.insert(buffers_.end(), frame.begin(), frame.end());
  if ((start[0] & 1) == 0) {
    const u64 key = key_of(start.data());
    auto found = by_mac_.find(key);
    if (found == by_mac_.end()) {
      found = learned_.find(key);
      if (found == learned_.end()) found = by_mac_.end();
    }
    if (found != by_mac_.end()) return send_to(found->second, true);
  }
  for (Where member = members_.begin(); member != members_.end(); ++member) send_to(member, false);
  return Transmit::kDone;
}

// buffers_ to one member. may_wait: kBusy when it does not read, for a while.
Transmit Segment::send_to(Where member, bool may_wait) {
  if (!member->out.valid() || member->stalled) return Transmit::kDone;
  msghdr message{};
  message.msg_iov = buffers_.data();
  message.msg_iovlen = buffers_.size();
  ssize_t sent;
  do {
    sent = ::sendmsg(member->out.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  // A connection that ended is told by the loop too. ENOBUFS, EMSGSIZE: the frame is lost.
  if (sent >= 0 || errno != EAGAIN || !may_wait) return Transmit::kDone;
  watch_out(member, EPOLLOUT);
  waiting_ = true;
  waiting_for_ = member;
  patience_->arm(kPatienceNs);
  return Transmit::kBusy;
}

bool Segment::serve_locally(std::span<const iovec> frame, std::span<const u8> start) {
  if (!services_.is_ours(start)) return false;
  std::array<u8, SegmentServices::kMostBytes> whole;
  const std::vector<u8> reply = services_.answer(std::span(whole).first(copy_start(frame, whole)));
  if (reply.empty()) return true;
  const iovec piece{const_cast<u8*>(reply.data()), reply.size()};
  sink_->steer(sink_->transmit_pair());
  sink_->deliver({&piece, 1}, {});  // without room it is lost: the guest asks again
  return true;
}

// --- From others ---

ssize_t Segment::receive_message(int fd, std::span<const iovec> room) {
  buffers_.assign(1, {&header_, sizeof(header_)});
  buffers_.insert(buffers_.end(), room.begin(), room.end());
  msghdr message{};
  message.msg_iov = buffers_.data();
  message.msg_iovlen = buffers_.size();
  ssize_t got;
  do {
    got = ::recvmsg(fd, &message, MSG_DONTWAIT);
  } while (got < 0 && errno == EINTR);
  if (got > 0 && (message.msg_flags & MSG_TRUNC) != 0)
    return 1;  // too long for any frame: dropped as too short
  return got;
}

// Into the pair of the frame that comes next, which is read into that pair's buffers: with several
// pairs its start is looked at first.
void Segment::steer_next(int fd) {
  const u16 pairs = sink_->pairs();
  if (pairs == 1) return sink_->steer(0);
  std::array<u8, sizeof(OffloadHeader) + FlowPairs::kStart> start;
  const ssize_t got = ::recv(fd, start.data(), start.size(), MSG_DONTWAIT | MSG_PEEK);
  if (got <= static_cast<ssize_t>(sizeof(OffloadHeader))) return;  // the next call tells why
  sink_->steer(flows_.pair_of(
      std::span(start).first(static_cast<std::size_t>(got)).subspan(sizeof(OffloadHeader)), pairs));
}

Segment::Got Segment::receive_one(Where member) {
  const bool direct = sink_ != nullptr && takes_everything();
  std::span<const iovec> room;
  iovec mine;
  if (direct) {
    steer_next(member->in.get());
    room = sink_->reserve(kMaxFrame);
    if (room.empty()) return Got::kNoRoom;
  } else {
    whole_.resize(kMaxFrame);
    mine = {whole_.data(), whole_.size()};
    room = {&mine, 1};
  }
  const ssize_t got = receive_message(member->in.get(), room);
  if (got < 0 && errno == EAGAIN) return Got::kNothing;
  if (got <= 0) return Got::kGone;
  const u64 size = static_cast<u64>(got) - std::min<u64>(static_cast<u64>(got), sizeof(header_));
  if (sink_ == nullptr || size < kEthernetHeader) return Got::kFrame;
  header_.flags &= OffloadHeader::kNeedsChecksum | OffloadHeader::kDataValid;
  if ((header_.flags & OffloadHeader::kNeedsChecksum) != 0 &&
      u64{header_.checksum_start} + header_.checksum_offset + 2 > size)
    return Got::kFrame;
  learn(member, room);
  if (direct) {
    if (takes(sink_->offloads(), header_)) sink_->commit(static_cast<u32>(size), header_);
  } else {
    receive_plain({whole_.data(), size});
  }
  return Got::kFrame;
}

// The guest's driver takes less than other members may send.
void Segment::receive_plain(ConstByteSpan frame) {
  const ByteSpan bytes(whole_.data(), frame.size());
  sink_->steer(
      flows_.pair_of(frame.first(std::min(frame.size(), FlowPairs::kStart)), sink_->pairs()));
  const auto deliver = [&](ByteSpan piece, const OffloadHeader& header) {
    const iovec buffer{piece.data(), piece.size()};
    sink_->deliver({&buffer, 1}, header);  // without room it is lost
  };
  if (takes(sink_->offloads(), header_)) return deliver(bytes, header_);
  make_plain(bytes, header_, [&](ByteSpan piece) { deliver(piece, {}); });
}

void Segment::learn(Where member, std::span<const iovec> frame) {
  std::array<u8, 12> start;
  copy_start(frame, start);
  const u8* const source = start.data() + 6;
  if (std::equal(member->mac.begin(), member->mac.end(), source) || (source[0] & 1) != 0) return;
  const u64 key = key_of(source);
  // A member's own address stays its own, whoever uses it.
  if (by_mac_.contains(key) || key == key_of(options_.mac.data())) return;
  if (learned_.size() >= kMostLearned && !learned_.contains(key)) learned_.clear();
  learned_[key] = member;
}

void Segment::room_again() {
  for (Where next = members_.begin(); next != members_.end();) {
    const Where member = next++;
    if (std::exchange(member->waits_for_room, false)) read_frames(member);
  }
  sink_->flush();
}

}  // namespace

Result<std::unique_ptr<Backend>> open_segment(base::EventLoop& loop,
                                              const SegmentOptions& options) {
  SegmentOptions checked = options;
  if (!options.name.empty()) {
    TRY_ASSIGN(checked.name, check_member_name(options.name));
  }
  constexpr u32 kNetwork = 0x0a580000, kHostMask = 0xffff;
  if (options.ip != 0 && ((options.ip & ~kHostMask) != kNetwork || (options.ip & kHostMask) < 2 ||
                          (options.ip & kHostMask) == kHostMask))
    return fail("a segment's members have addresses from 10.88.0.2 to 10.88.255.254");
  return Segment::create(loop, checked);
}

}  // namespace smol::net

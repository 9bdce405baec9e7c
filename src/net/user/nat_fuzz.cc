// The guest's side: frames of any bytes, in many of which the headers are right so that deep code
// is reached, with flows, resets of the device and missing room between them. What it may reach is
// a listener, a socket and a resolver of our own on the loopback; those answer with the input's
// bytes, so the host's side is hostile too.
#include <sys/socket.h>

#include "base/check.h"
#include "base/log.h"
#include "net/user/checksum.h"
#include "net/user/fuzz_input.h"
#include "net/user/gateway.h"

namespace smol::net::user {
namespace {

class NullSink final : public FrameSink {
 public:
  std::span<const iovec> reserve(u32 bytes) override {
    if (room == 0) return {};
    CHECK(bytes <= kMaxFrame);
    reserved_ = bytes;
    buffers_[0] = {memory_.data(), std::min<std::size_t>(bytes, 100)};
    buffers_[1] = {memory_.data() + 100, bytes - buffers_[0].iov_len};
    return std::span(buffers_).first(bytes > 100 ? 2 : 1);
  }
  void commit(u32 bytes, const OffloadHeader& offload) override {
    CHECK(bytes >= 1 && bytes <= reserved_ && room != 0);
    --room;
    look(bytes, offload);
  }
  bool deliver(std::span<const iovec> frame, const OffloadHeader& offload) override {
    if (room == 0) return false;
    --room;
    const std::size_t size = [&] {
      std::size_t sum = 0;
      for (const iovec& part : frame) sum += part.iov_len;
      return sum;
    }();
    CHECK(size >= 14 && size <= kMaxFrame);
    CHECK(copy_out(frame, 0, memory_) == size);
    look(size, offload);
    return true;
  }
  void flush() override {}
  GuestOffloads offloads() const override { return offers; }
  void transmit_again() override {}
  std::mutex& mutex() override { return mutex_; }

  u64 room = 0;
  GuestOffloads offers;
  // Of the last TCP segment that came, so that the input can go on with it.
  u32 sequence = 0, acknowledged = 0;
  u16 ports[2] = {};

 private:
  // Every frame must be well formed.
  void look(std::size_t size, const OffloadHeader& offload) {
    if (offload.gso_type != OffloadHeader::kNone) CHECK(offload.gso_size != 0 && offers.checksum);
    Packet packet;
    const iovec frame{memory_.data(), size};
    CHECK(packet.parse_ethernet({&frame, 1}));
    if (packet.ether_type == kEtherArp) return;
    CHECK(packet.parse_ip());
    if (packet.protocol != kIpTcp || packet.fragment) return;
    const auto tcp = packet.transport();
    CHECK(tcp.size() >= 20);
    sequence = load_be32(tcp.data() + 4);
    acknowledged = load_be32(tcp.data() + 8);
    ports[0] = load_be16(tcp.data());
    ports[1] = load_be16(tcp.data() + 2);
  }
  std::mutex mutex_;
  std::array<u8, kMaxFrame> memory_;
  std::array<iovec, 2> buffers_;
  u32 reserved_ = 0;
};

struct Socket {
  explicit Socket(int kind) {
    fd.reset(::socket(AF_INET, kind | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    sockaddr_storage storage{};
    socklen_t size = Endpoint{IpAddress::v4(0x7f000001), 0}.to(storage);
    CHECK(::bind(fd.get(), reinterpret_cast<sockaddr*>(&storage), size) == 0);
    if (kind == SOCK_STREAM) CHECK(::listen(fd.get(), 64) == 0);
    size = sizeof storage;
    CHECK(::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&storage), &size) == 0);
    port = Endpoint::of(storage).port;
  }
  base::UniqueFd fd;
  u16 port = 0;
};

struct World {
  World() {
    NatConfig config;
    config.resolvers = {{IpAddress::v4(0x7f000001), resolver.port}};
    config.max_flows = 16;
    config.allow = {*EgressRule::parse("*.example"), *EgressRule::parse("example"),
                    *EgressRule::parse(fmt::format("10.0.2.2:{}", stream.port)),
                    *EgressRule::parse(fmt::format("10.0.2.2:{}", datagram.port))};
    loop = std::move(*base::EventLoop::create());
    gateway = std::move(*Gateway::create(*loop, config));
  }
  Socket stream{SOCK_STREAM}, datagram{SOCK_DGRAM}, resolver{SOCK_DGRAM};
  std::unique_ptr<base::EventLoop> loop;
  std::unique_ptr<Gateway> gateway;
  NullSink sink;
  std::vector<base::UniqueFd> accepted;
};

std::vector<u8> frame(FuzzInput& input, World& world) {
  std::vector<u8> out(14, 0x52);
  const u8 shape = input.take<u8>();
  const bool v4 = (shape & 3) != 0;
  store_be16(out.data() + 12, v4 ? kEtherIp4 : kEtherIp6);
  static constexpr u8 kProtocols[] = {kIpTcp, kIpTcp, kIpUdp, kIpUdp, kIpIcmp, kIpIcmp6, 0, 44};
  const u8 protocol = kProtocols[shape >> 2 & 7];
  std::vector<u8> l4 = input.bytes(input.take<u8>());
  static constexpr u16 kFixed[] = {53, 67, 80};
  const u16 ports[] = {world.stream.port, world.datagram.port, kFixed[shape % 3]};
  if (protocol == kIpTcp && l4.size() >= 20) {
    store_be16(l4.data(), static_cast<u16>(1 + l4[0] % 20));
    store_be16(l4.data() + 2, ports[l4[2] % 3]);
    if ((l4[3] & 3) != 0) {  // goes on with what came last
      store_be16(l4.data(), world.sink.ports[1]);
      store_be16(l4.data() + 2, world.sink.ports[0]);
      store_be32(l4.data() + 4, world.sink.acknowledged + (l4[4] & 1));
      store_be32(l4.data() + 8, world.sink.sequence + (l4[8] & 3));
    }
    l4[12] = static_cast<u8>(l4[12] % 4 == 0 ? l4[12] : 0x50);
  }
  if (protocol == kIpUdp && l4.size() >= 8) {
    store_be16(l4.data() + 2, ports[l4[2] % 3]);
    if (l4[4] % 8 != 0) store_be16(l4.data() + 4, static_cast<u16>(l4.size()));
  }
  const char* target =
      (shape & 64) != 0 ? (v4 ? "10.0.2.3" : "fd00:0:0:2::3") : (v4 ? "10.0.2.2" : "fd00:0:0:2::2");
  const auto to = IpAddress::literal(target);
  std::vector<u8> ip(v4 ? 20 : 40);
  if (v4) {
    ip[0] = 0x45;
    store_be16(ip.data() + 2, static_cast<u16>(20 + l4.size()));
    store_be16(ip.data() + 6, (shape & 128) != 0 ? input.take<u16>() & 0x2003 : 0);
    ip[9] = protocol;
    store_be32(ip.data() + 12, 0x0a00020f);
    std::memcpy(ip.data() + 16, to.wire(), 4);
  } else {
    ip[0] = 0x60;
    store_be16(ip.data() + 4, static_cast<u16>(l4.size()));
    ip[6] = protocol;
    ip[7] = 255;
    ip[8] = 0xfd;
    ip[23] = 0x15;
    std::memcpy(ip.data() + 24, to.wire(), 16);
  }
  out.insert(out.end(), ip.begin(), ip.end());
  out.insert(out.end(), l4.begin(), l4.end());
  return out;
}

// What hosts do: accept, answer with any bytes, end.
void host_step(World& world, FuzzInput& input) {
  const auto bytes = input.bytes(input.take<u8>());
  const auto answer = [&](const Socket& socket, bool keep_question) {
    u8 question[512];
    sockaddr_storage from{};
    socklen_t size = sizeof from;
    const ssize_t count = ::recvfrom(socket.fd.get(), question, sizeof question, 0,
                                     reinterpret_cast<sockaddr*>(&from), &size);
    if (count < 0) return;
    std::vector<u8> reply = bytes;
    if (keep_question && count >= 12) {
      reply.assign(question, question + count);
      reply[2] |= 0x80;
      store_be16(reply.data() + 6, 3);
      reply.insert(reply.end(), bytes.begin(), bytes.end());
    }
    ::sendto(socket.fd.get(), reply.data(), reply.size(), MSG_NOSIGNAL,
             reinterpret_cast<sockaddr*>(&from), size);
  };
  switch (input.take<u8>() % 5) {
    case 0: {
      base::UniqueFd peer(::accept4(world.stream.fd.get(), nullptr, nullptr, SOCK_NONBLOCK));
      if (peer.valid() && world.accepted.size() < 16) world.accepted.push_back(std::move(peer));
      break;
    }
    case 1:
      for (const auto& peer : world.accepted)
        ::send(peer.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      break;
    case 2:
      if (!world.accepted.empty()) world.accepted.pop_back();
      break;
    case 3:
      answer(world.datagram, false);
      break;
    default:
      answer(world.resolver, input.take<u8>() % 4 != 0);
  }
}

void step(World& world, FuzzInput& input) {
  world.sink.room = input.take<u8>() % 8;
  switch (input.take<u8>() % 8) {
    case 0: {
      auto any = input.bytes(input.take<u8>());
      iovec piece{any.data(), any.size()};
      world.gateway->transmit({&piece, 1}, {});
      world.gateway->transmit_done();
      break;
    }
    case 1:
    case 2:
      host_step(world, input);
      break;
    case 3:
      world.gateway->room_again();
      break;
    case 4:
      (void)world.loop->run_once(0);
      break;
    default: {
      auto made = frame(input, world);
      const std::size_t cut = std::min<std::size_t>(made.size(), 1 + input.take<u8>());
      const iovec pieces[] = {{made.data(), cut}, {made.data() + cut, made.size() - cut}};
      world.gateway->transmit(pieces, {});
      if (input.take<u8>() % 4 != 0) world.gateway->transmit_done();
    }
  }
}

}  // namespace
}  // namespace smol::net::user

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace smol::net::user;
  smol::base::set_log_level(smol::base::LogLevel::kError);
  static World world;
  FuzzInput input(data, size);
  world.sink.offers = {};
  if (input.take<smol::u8>() % 2 == 0)
    world.sink.offers = {.checksum = true, .tso4 = true, .tso6 = true};
  CHECK(world.gateway->attach(world.sink));
  while (!input.done()) step(world, input);
  world.sink.room = 100;
  world.gateway->transmit_done();
  (void)world.loop->run_once(0);
  world.gateway->detach();
  world.accepted.clear();
  while (smol::base::UniqueFd(::accept4(world.stream.fd.get(), nullptr, nullptr, SOCK_NONBLOCK))
             .valid()) {
  }
  return 0;
}

// See dhcp.h. Options: RFC 2132, RFC 3397 is left out (one domain name suffices).
#include "net/user/dhcp.h"

#include <algorithm>
#include <vector>

namespace smol::net::user {
namespace {

constexpr std::size_t kFixed = 236;  // bytes in front of the magic cookie
constexpr u32 kCookie = 0x63825363;
enum Message : u8 { kDiscover = 1, kOffer = 2, kRequest = 3, kAck = 5, kNak = 6, kInform = 8 };
enum Option : u8 {
  kMask = 1,
  kRouter = 3,
  kDns = 6,
  kHostName = 12,
  kDomainName = 15,
  kMtu = 26,
  kBroadcast = 28,
  kAddress = 50,
  kLease = 51,
  kType = 53,
  kServer = 54,
  kEnd = 255,
};

// The option's value, empty when it is not there (or cut off).
ConstByteSpan find_option(ConstByteSpan options, u8 wanted) {
  for (std::size_t at = 0; at < options.size();) {
    const u8 code = options[at];
    if (code == kEnd) break;
    if (code == 0) {
      ++at;
      continue;
    }
    if (at + 2 > options.size() || at + 2 + options[at + 1] > options.size()) break;
    if (code == wanted) return options.subspan(at + 2, options[at + 1]);
    at += 2 + options[at + 1];
  }
  return {};
}

class Options {
 public:
  explicit Options(std::vector<u8>& out) : out_(out) {}
  void add(u8 code, ConstByteSpan value) {
    const auto size = std::min<std::size_t>(value.size(), 255);
    out_.push_back(code);
    out_.push_back(static_cast<u8>(size));
    out_.insert(out_.end(), value.begin(), value.begin() + static_cast<std::ptrdiff_t>(size));
  }
  void add(u8 code, const IpAddress& address) { add(code, {address.wire(), 4}); }
  void add32(u8 code, u32 value) {
    u8 bytes[4];
    store_be32(bytes, value);
    add(code, ConstByteSpan(bytes));
  }
  void add_text(u8 code, std::string_view text) {
    if (!text.empty()) add(code, {reinterpret_cast<const u8*>(text.data()), text.size()});
  }

 private:
  std::vector<u8>& out_;
};

void add_settings(Options& options, const NatConfig& config) {
  const u32 mask = config.prefix4 == 0 ? 0 : ~0u << (32 - config.prefix4);
  options.add32(kMask, mask);
  options.add32(kBroadcast, config.gateway4.v4() | ~mask);
  options.add(kRouter, config.gateway4);
  options.add(kDns, config.dns4);
  u8 mtu[2];
  store_be16(mtu, static_cast<u16>(config.mtu));
  options.add(kMtu, ConstByteSpan(mtu));
  options.add_text(kHostName, config.hostname);
  options.add_text(kDomainName, config.search_domain);
}

}  // namespace

void DhcpServer::on_message(const Packet& packet, ConstByteSpan message) {
  constexpr u8 kBootRequest = 1, kBootReply = 2;
  if (message.size() < kFixed + 4 || message[0] != kBootRequest || message[1] != 1 ||
      message[2] != 6 || load_be32(message.data() + kFixed) != kCookie)
    return;
  const NatConfig& config = context_.config;
  const ConstByteSpan asked = message.subspan(kFixed + 4);
  const ConstByteSpan type = find_option(asked, kType);
  if (type.size() != 1) return;
  const ConstByteSpan server = find_option(asked, kServer);
  if (server.size() == 4 && IpAddress::from4(server.data()) != config.gateway4) return;
  const ConstByteSpan wanted = find_option(asked, kAddress);
  const auto client = IpAddress::from4(message.data() + 12);  // ciaddr
  const auto named = wanted.size() == 4 ? IpAddress::from4(wanted.data()) : client;
  u8 answer = 0;
  if (type[0] == kDiscover) answer = kOffer;
  if (type[0] == kRequest) answer = named == config.guest4 ? kAck : kNak;
  if (type[0] == kInform) answer = kAck;
  if (answer == 0) return;
  context_.link.learn(packet.source_mac);

  std::vector<u8> out(kFixed + 4);
  out[0] = kBootReply;
  out[1] = 1;
  out[2] = 6;
  std::copy_n(message.data() + 4, 4, out.data() + 4);     // xid
  std::copy_n(message.data() + 10, 2, out.data() + 10);   // flags
  std::copy_n(message.data() + 28, 16, out.data() + 28);  // chaddr
  if (answer != kNak && type[0] != kInform) std::memcpy(out.data() + 16, config.guest4.wire(), 4);
  if (type[0] == kInform) std::memcpy(out.data() + 12, client.wire(), 4);
  store_be32(out.data() + kFixed, kCookie);
  Options options(out);
  options.add(kType, ConstByteSpan(&answer, 1));
  options.add(kServer, config.gateway4);
  if (answer != kNak) {
    if (type[0] != kInform) options.add32(kLease, kLeaseSeconds);
    add_settings(options, config);
  }
  out.push_back(kEnd);
  out.resize(std::max<std::size_t>(out.size(), 300));  // what BOOTP clients expect at least

  const bool broadcast = (out[10] & 0x80) != 0 || answer == kNak;
  const MacAddress everybody{0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
  const bool has_address = !client.is_unspecified();
  IpAddress to = has_address ? client : config.guest4;
  if (broadcast) to = IpAddress::v4(0xffffffff);
  context_.link.send_udp({config.gateway4, kServerPort}, {to, kClientPort}, out,
                         broadcast ? &everybody : &packet.source_mac);
}

}  // namespace smol::net::user

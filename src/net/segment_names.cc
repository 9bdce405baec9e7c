// The segment's DHCP (RFC 2131, 2132) and DNS (RFC 1035) answers.
#include <fmt/format.h>

#include <algorithm>

#include "net/peer_names.h"
#include "net/segment_services.h"

namespace smol::net {
namespace {

u16 load16(const u8* from) { return static_cast<u16>(from[0] << 8 | from[1]); }
void append16(std::vector<u8>& to, u64 value) {
  to.push_back(static_cast<u8>(value >> 8));
  to.push_back(static_cast<u8>(value));
}
void append32(std::vector<u8>& to, u32 value) {
  append16(to, value >> 16);
  append16(to, value & 0xffff);
}

// --- DHCP ---
constexpr std::size_t kDhcpOptions = 240;
constexpr u8 kMagic[] = {99, 130, 83, 99};
enum DhcpOption : u8 {
  kMask = 1,
  kDnsServers = 6,
  kHostName = 12,
  kDomain = 15,
  kMtu = 26,
  kRequested = 50,
  kLease = 51,
  kType = 53,
  kServer = 54,
  kEnd = 255
};
enum DhcpType : u8 { kDiscover = 1, kOffer = 2, kRequest = 3, kAck = 5, kNak = 6, kInform = 8 };
constexpr u32 kLeaseSeconds = 86400;

// The option's bytes; empty when it is not there or runs over the end.
ConstByteSpan find_option(ConstByteSpan options, u8 wanted) {
  while (options.size() >= 2 && options[0] != kEnd) {
    if (options[0] == 0) {
      options = options.subspan(1);
      continue;
    }
    const std::size_t size = options[1];
    if (options.size() < 2 + size) return {};
    if (options[0] == wanted) return options.subspan(2, size);
    options = options.subspan(2 + size);
  }
  return {};
}

void append_option(std::vector<u8>& to, u8 option, std::string_view text) {
  to.push_back(option);
  to.push_back(static_cast<u8>(text.size()));
  to.insert(to.end(), text.begin(), text.end());
}
void append_option(std::vector<u8>& to, u8 option, u32 value) {
  to.push_back(option);
  to.push_back(4);
  append32(to, value);
}

// --- DNS ---
enum DnsType : u16 { kA = 1, kPtr = 12, kAny = 255 };
enum DnsCode : u8 {
  kNoError = 0,
  kFormatError = 1,
  kNoSuchName = 3,
  kNotImplemented = 4,
  kRefused = 5
};
constexpr u16 kInternet = 1;
constexpr u32 kTimeToLive = 5;  // seconds: members come and go

// The question's name, lower case, dots between labels; moves past it. False: malformed
// (compression has no place here).
bool read_name(ConstByteSpan& rest, std::string& name) {
  while (true) {
    if (rest.empty()) return false;
    const std::size_t size = rest[0];
    rest = rest.subspan(1);
    if (size == 0) return true;
    if (size > 63 || size > rest.size() || name.size() + size > 253) return false;
    if (!name.empty()) name += '.';
    for (const u8 c : rest.first(size))
      name += static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
    rest = rest.subspan(size);
  }
}

}  // namespace

std::vector<u8> SegmentServices::dhcp(ConstByteSpan request) const {
  if (config_.guest_ip == 0 || request.size() < kDhcpOptions || request[0] != 1) return {};
  if (!std::equal(std::begin(kMagic), std::end(kMagic), request.begin() + 236)) return {};
  if (!std::equal(config_.mac.begin(), config_.mac.end(), request.begin() + 28)) return {};
  const ConstByteSpan type = find_option(request.subspan(kDhcpOptions), kType);
  if (type.size() != 1 || (type[0] != kDiscover && type[0] != kRequest && type[0] != kInform))
    return {};
  u8 answer = type[0] == kDiscover ? kOffer : kAck;
  if (type[0] == kRequest) {
    u32 wanted = __builtin_bswap32(base::load<u32>(request.data() + 12));  // ciaddr, when renewing
    if (const ConstByteSpan option = find_option(request.subspan(kDhcpOptions), kRequested);
        option.size() == 4)
      wanted = __builtin_bswap32(base::load<u32>(option.data()));
    if (wanted != config_.guest_ip) answer = kNak;
  }
  std::vector<u8> reply(request.begin(),
                        request.begin() + static_cast<std::ptrdiff_t>(kDhcpOptions));
  reply[0] = 2;
  reply[3] = 0;
  std::fill(reply.begin() + 44, reply.begin() + 236, u8{0});  // server's name and file
  if (answer != kNak && type[0] != kInform)
    base::store(reply.data() + 16, __builtin_bswap32(config_.guest_ip));
  base::store(reply.data() + 20, __builtin_bswap32(config_.service_ip));
  const char kind = static_cast<char>(answer);
  append_option(reply, kType, std::string_view(&kind, 1));
  append_option(reply, kServer, config_.service_ip);
  if (answer != kNak) {
    if (type[0] != kInform) append_option(reply, kLease, kLeaseSeconds);
    append_option(reply, kMask, ~u32{0} << (32 - config_.prefix));
    if (config_.gives_dns) append_option(reply, kDnsServers, config_.service_ip);
    append_option(reply, kDomain, kSegmentDomain);
    if (!config_.name.empty()) append_option(reply, kHostName, config_.name);
    const char mtu[] = {static_cast<char>(config_.mtu >> 8), static_cast<char>(config_.mtu & 0xff)};
    if (config_.mtu != 0) append_option(reply, kMtu, std::string_view(mtu, 2));
  }
  reply.push_back(kEnd);
  return reply;
}

// The resource record behind a pointer to the question's name; empty with a code that says why.
std::vector<u8> SegmentServices::dns_answer(const std::string& name, u16 type, u8& code) const {
  std::vector<u8> record = {0xc0, 12};
  const auto head = [&](u16 record_type, std::size_t size) {
    append16(record, record_type);
    append16(record, kInternet);
    append32(record, kTimeToLive);
    append16(record, size);
  };
  if (const auto address = reverse_address(name)) {
    const auto known = by_address_(*address);
    code = known ? kNoError : kNoSuchName;
    if (!known || (type != kPtr && type != kAny)) return {};
    std::vector<u8> target;
    append_dns_name(target, fmt::format("{}.{}", *known, kSegmentDomain));
    head(kPtr, target.size());
    record.insert(record.end(), target.begin(), target.end());
    return record;
  }
  const std::string_view label = without_segment_domain(name);
  const auto address = by_name_(label);
  // A name of another domain is for another server to know; one of ours that nobody has does not
  // exist.
  code = address ? kNoError : label.find('.') == std::string_view::npos ? kNoSuchName : kRefused;
  if (!address || (type != kA && type != kAny)) return {};
  head(kA, 4);
  append32(record, *address);
  return record;
}

std::vector<u8> SegmentServices::dns(ConstByteSpan query) const {
  if (query.size() < 12 || (query[2] & 0x80) != 0) return {};
  std::vector<u8> reply = {
      query[0], query[1], static_cast<u8>(0x84 | (query[2] & 0x79)), 0, 0, 0, 0, 0, 0, 0, 0, 0};
  u8& code = reply[3];
  ConstByteSpan rest = query.subspan(12);
  std::string name;
  if ((query[2] & 0x78) != 0) {
    code = kNotImplemented;
  } else if (load16(query.data() + 4) != 1 || !read_name(rest, name) || rest.size() < 4) {
    code = kFormatError;
  } else {
    const u16 type = load16(rest.data()), kind = load16(rest.data() + 2);
    u8 result = kRefused;
    std::vector<u8> record;
    if (kind == kInternet) record = dns_answer(name, type, result);
    code = result;
    reply[5] = 1;
    reply[7] = record.empty() ? 0 : 1;
    const auto question =
        query.subspan(12, static_cast<std::size_t>(rest.data() + 4 - (query.data() + 12)));
    reply.insert(reply.end(), question.begin(), question.end());
    reply.insert(reply.end(), record.begin(), record.end());
  }
  return reply;
}

}  // namespace smol::net

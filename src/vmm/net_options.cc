// `--net`: the text of one interface as a NetConfig. Which keys go together depends on the mode, so
// a key of another mode is refused with that mode's name.
#include <arpa/inet.h>

#include <charconv>

#include "vmm/options.h"

namespace smol::vmm {
namespace {

struct ModeKey {
  std::string_view key;
  NetMode mode;
  std::string_view mode_name;
};
// ip is two modes' key.
constexpr ModeKey kModeKeys[] = {
    {"tap", NetMode::kTap, "tap"},
    {"fd", NetMode::kTap, "tap"},
    {"bridge", NetMode::kTap, "tap"},
    {"mask", NetMode::kTap, "tap"},
    {"publish", NetMode::kUser, "user"},
    {"allow", NetMode::kUser, "user"},
    {"dns", NetMode::kUser, "user"},
    {"hosts", NetMode::kUser, "user"},
    {"host_access", NetMode::kUser, "user"},
    {"egress_log", NetMode::kUser, "user"},
    {"segment", NetMode::kSegment, "segment"},
    {"name", NetMode::kSegment, "segment"},
};

std::vector<std::string_view> known_keys() {
  std::vector<std::string_view> keys = {"mode",       "id",         "mac", "mtu",
                                        "num_queues", "queue_size", "ip"};
  for (const ModeKey& entry : kModeKeys) keys.push_back(entry.key);
  keys.insert(keys.end(), std::begin(kRateLimitKeys), std::end(kRateLimitKeys));
  return keys;
}

// Without mode=: told by the keys (tap=... alone is Cloud Hypervisor's whole spelling), else tap.
Result<NetMode> mode_of(const OptionList& list) {
  if (!list.has("mode"))
    return list.has("segment")   ? NetMode::kSegment
           : list.has("publish") ? NetMode::kUser
                                 : NetMode::kTap;
  const std::string text = list.text("mode");
  if (text == "user") return NetMode::kUser;
  if (text == "tap") return NetMode::kTap;
  if (text == "segment") return NetMode::kSegment;
  return fail("--net: mode={} is not supported (user, tap and segment are)", text);
}

bool is_ipv4(const std::string& text) {
  in_addr address{};
  return ::inet_pton(AF_INET, text.c_str(), &address) == 1;
}

Result<> read_numbers(const OptionList& list, NetConfig& net) {
  TRY_ASSIGN(const u64 mtu, list.number("mtu", 0));
  if (mtu != 0 && (mtu < 68 || mtu > 65520))
    return fail("--net: mtu={} (68 to 65520 is allowed)", mtu);
  net.mtu = static_cast<u16>(mtu);
  TRY_ASSIGN(const u64 queues, list.number("num_queues", 2));
  if (queues < 2 || queues > 64 || queues % 2 != 0)
    return fail("--net: num_queues={} (receive and transmit together: an even number from 2 to 64)",
                queues);
  net.num_queues = static_cast<u32>(queues);
  TRY_ASSIGN(const u64 size, list.number("queue_size", 256));
  if (size < 64 || size > 1024 || (size & (size - 1)) != 0)
    return fail("--net: queue_size={} (a power of two from 64 to 1024)", size);
  net.queue_size = static_cast<u32>(size);
  TRY_ASSIGN(net.rate_limit, parse_rate_limit("--net", list));
  return {};
}

Result<> read_tap(const OptionList& list, NetConfig& net) {
  net.tap = list.text("tap");
  net.bridge = list.text("bridge");
  net.mask = list.text("mask");
  if (list.has("fd")) {
    TRY_ASSIGN(const auto texts, list.list("fd"));
    for (const std::string& text : texts) {
      int fd = 0;
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), fd);
      if (error != std::errc() || end != text.data() + text.size() || fd < 3 || fd > 1'000'000)
        return fail("--net: fd={} is not a descriptor that was handed over", text);
      net.fds.push_back(fd);
    }
    if (net.fds.size() != 1 && net.fds.size() != net.num_queues / 2)
      return fail("--net: {} descriptors for {} queue pairs (one, or one for each)", net.fds.size(),
                  net.num_queues / 2);
    if (list.has("tap") || list.has("ip") || list.has("bridge"))
      return fail("--net: fd= goes without tap=, ip= and bridge=");
  }
  if (!net.mask.empty() && net.ip.empty()) return fail("--net: mask= needs ip=");
  if (!net.mask.empty() && !is_ipv4(net.mask))
    return fail("--net: mask={} is not an IPv4 mask", net.mask);
  return {};
}

Result<> read_user(const OptionList& list, NetConfig& net) {
  TRY_ASSIGN(net.publish, list.list("publish"));
  TRY_ASSIGN(net.allow, list.list("allow"));
  net.restrict_egress = list.has("allow");
  net.dns = list.text("dns");
  TRY_ASSIGN(net.hosts, list.list("hosts"));
  TRY_ASSIGN(net.host_access, list.flag("host_access", true));
  net.egress_log = list.text("egress_log");
  if (!net.ip.empty()) return fail("--net: 'ip' belongs to mode=tap and mode=segment");
  return {};
}

Result<> read_segment(const OptionList& list, NetConfig& net) {
  net.segment = list.text("segment");
  net.name = list.text("name");
  if (net.segment.empty()) return fail("--net: mode=segment needs segment=DIR");
  if (net.ip.empty() != net.name.empty())
    return fail("--net: name= and ip= of a segment's member go together");
  return {};
}

}  // namespace

Result<MacAddress> parse_mac(std::string_view text) {
  MacAddress mac{};
  bool good = text.size() == 17;
  for (std::size_t i = 0; good && i < 6; ++i) {
    const char* const at = text.data() + 3 * i;
    good = std::from_chars(at, at + 2, mac[i], 16).ptr == at + 2 && (i == 5 || at[2] == ':');
  }
  if (!good) return fail("'{}' is not a MAC address (like 52:54:00:12:34:56)", text);
  if ((mac[0] & 1) != 0) return fail("{} is a multicast address: no interface can have it", text);
  if (mac == MacAddress{}) return fail("{} is no address", text);
  return mac;
}

Result<NetConfig> parse_net(std::string_view text) {
  TRY_ASSIGN(const OptionList list, OptionList::parse("--net", text, known_keys()));
  NetConfig net;
  TRY_ASSIGN(net.mode, mode_of(list));
  for (const ModeKey& entry : kModeKeys)
    if (list.has(std::string(entry.key)) && entry.mode != net.mode)
      return fail("--net: '{}' belongs to mode={}", entry.key, entry.mode_name);
  net.id = list.text("id");
  net.ip = list.text("ip");
  if (!net.ip.empty() && !is_ipv4(net.ip))
    return fail("--net: ip={} is not an IPv4 address", net.ip);
  if (list.has("mac")) {
    const auto mac = parse_mac(list.text("mac"));
    if (!mac) return wrap(mac.error(), "--net");
    net.mac = *mac;
  }
  TRY(read_numbers(list, net));
  switch (net.mode) {
    case NetMode::kTap:
      TRY(read_tap(list, net));
      break;
    case NetMode::kUser:
      TRY(read_user(list, net));
      break;
    case NetMode::kSegment:
      TRY(read_segment(list, net));
      break;
  }
  return net;
}

}  // namespace smol::vmm

// The DNS forwarder and the egress policy, with a scripted guest and resolvers on the loopback.
#include "net/user/dns.h"

#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>

#include "net/user/fake_tcp.h"

namespace smol::net::user::testing {
namespace {

const IpAddress kDns = IpAddress::literal("10.0.2.3");

std::vector<u8> wire_name(std::string_view name) {
  std::vector<u8> out;
  while (!name.empty()) {
    const auto dot = std::min(name.find('.'), name.size());
    out.push_back(static_cast<u8>(dot));
    out.insert(out.end(), name.begin(), name.begin() + static_cast<std::ptrdiff_t>(dot));
    name.remove_prefix(std::min(dot + 1, name.size()));
  }
  out.push_back(0);
  return out;
}

std::vector<u8> query(u16 id, std::string_view name, u16 type = kDnsTypeA) {
  std::vector<u8> message{0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0};
  store_be16(message.data(), id);
  const auto encoded = wire_name(name);
  message.insert(message.end(), encoded.begin(), encoded.end());
  message.insert(message.end(), {0, static_cast<u8>(type), 0, 1});
  return message;
}

void add_record(std::vector<u8>& message, const std::vector<u8>& owner, u16 type, u32 ttl,
                const std::vector<u8>& data) {
  message.insert(message.end(), owner.begin(), owner.end());
  u8 fixed[10];
  store_be16(fixed, type);
  store_be16(fixed + 2, 1);
  store_be32(fixed + 4, ttl);
  store_be16(fixed + 8, static_cast<u16>(data.size()));
  message.insert(message.end(), fixed, fixed + sizeof fixed);
  message.insert(message.end(), data.begin(), data.end());
  store_be16(message.data() + 6, static_cast<u16>(load_be16(message.data() + 6) + 1));
}

// A name server on the loopback.
struct Resolver {
  HostSocket host{SOCK_DGRAM};
  Endpoint asker;
  // The next question, within the guest's time.
  std::optional<std::vector<u8>> question(FakeGuest& guest, int limit_ms = 5000) {
    std::optional<std::vector<u8>> got;
    guest.until(
        [&] {
          u8 buffer[2048];
          sockaddr_storage from{};
          socklen_t size = sizeof from;
          const ssize_t count = ::recvfrom(host.fd.get(), buffer, sizeof buffer, MSG_DONTWAIT,
                                           reinterpret_cast<sockaddr*>(&from), &size);
          if (count > 0) got.emplace(buffer, buffer + count);
          if (count > 0) asker = Endpoint::of(from);
          return got.has_value();
        },
        limit_ms);
    return got;
  }
  void answer(const std::vector<u8>& message) const {
    sockaddr_storage to{};
    const socklen_t size = asker.to(to);
    EXPECT_GT(::sendto(host.fd.get(), message.data(), message.size(), 0,
                       reinterpret_cast<sockaddr*>(&to), size),
              0);
  }
};

std::vector<u8> answer_of(std::vector<u8> question, u8 code = 0) {
  question[2] |= 0x80;
  question[3] = static_cast<u8>(0x80 | code);
  return question;
}

std::optional<std::vector<u8>> reply(FakeGuest& guest, int limit_ms = 5000) {
  auto got = guest.wait(limit_ms);
  while (got && (!got->ip || got->packet.protocol != kIpUdp)) got = guest.wait(limit_ms);
  if (!got) return std::nullopt;
  EXPECT_TRUE(checksum_good(*got));
  EXPECT_EQ(load_be16(got->l4().data()), 53);
  const auto payload = got->l4().subspan(8);
  return std::vector<u8>(payload.begin(), payload.end());
}

TEST(Dns, ForwardsAndAnswers) {
  Resolver resolver;
  NatConfig config;
  config.resolvers = {resolver.host.endpoint};
  FakeGuest guest(config);
  for (const char* at : {"10.0.2.3", "fd00:0:0:2::3"}) {
    guest.send_udp(4000, {IpAddress::literal(at), 53}, query(0x1234, "Example.org"));
    auto asked = resolver.question(guest);
    ASSERT_TRUE(asked);
    EXPECT_EQ(parse_question(*asked)->name, "example.org");
    auto wrong = answer_of(*asked);
    wrong[0] ^= 1;
    resolver.answer(wrong);  // a guess at the id: not believed
    auto right = answer_of(*asked);
    add_record(right, {0xc0, 12}, kDnsTypeA, 60, {192, 0, 2, 7});
    resolver.answer(right);
    const auto got = reply(guest);
    ASSERT_TRUE(got);
    EXPECT_EQ(load_be16(got->data()), 0x1234);
    EXPECT_EQ(load_be16(got->data() + 6), 1);
    EXPECT_FALSE(guest.next());
  }
}

TEST(Dns, TriesTheNextResolver) {
  Resolver silent, failing, good;
  NatConfig config;
  u16 closed = 0;
  {
    HostSocket gone(SOCK_DGRAM);
    closed = gone.endpoint.port;
  }
  config.resolvers = {{IpAddress::v4(0x7f000001), closed},
                      failing.host.endpoint,
                      silent.host.endpoint,
                      good.host.endpoint};
  FakeGuest guest(config);
  guest.send_udp(4000, {kDns, 53}, query(7, "a.example"));
  const auto first = failing.question(guest);
  ASSERT_TRUE(first);
  failing.answer(answer_of(*first, 2));
  ASSERT_TRUE(silent.question(guest));
  const auto last = good.question(guest);
  ASSERT_TRUE(last);
  good.answer(answer_of(*last, 3));
  EXPECT_EQ((*reply(guest))[3] & 15, 3);
  // The one that answered is asked first from now on.
  guest.send_udp(4000, {kDns, 53}, query(8, "b.example"));
  EXPECT_TRUE(good.question(guest, 500));
}

TEST(Dns, NamesOfItsOwn) {
  NatConfig config;
  config.resolvers = {{IpAddress::v4(0x7f000001), 1}};
  config.names = {{"host.internal", IpAddress::literal("10.0.2.2")},
                  {"host.internal", IpAddress::literal("fd00:0:0:2::2")}};
  FakeGuest guest(config);
  guest.send_udp(4000, {kDns, 53}, query(7, "HOST.internal"));
  const auto four = reply(guest);
  ASSERT_TRUE(four);
  const auto question = parse_question(*four);
  std::vector<std::string> found;
  for_each_address(*four, *question,
                   [&](const IpAddress& address, u32) { found.push_back(address.text()); });
  EXPECT_EQ(found, std::vector<std::string>{"10.0.2.2"});
  guest.send_udp(4000, {kDns, 53}, query(8, "host.internal", kDnsTypeAaaa));
  const auto six = reply(guest);
  ASSERT_TRUE(six);
  EXPECT_EQ(load_be16(six->data() + 6), 1);
}

// Peers of a segment are known beside the world, whatever the policy says of names.
TEST(Dns, MachinesOfASegment) {
  Resolver world;
  NatConfig config;
  config.resolvers = {world.host.endpoint};
  const auto names = std::make_shared<PeerNames>();
  config.peers = names;
  config.allow = {*EgressRule::parse("a.example")};
  FakeGuest guest(config);
  names->add("web", 0x0a580007);
  const auto addresses = [](const std::vector<u8>& answer) {
    std::string found;
    for_each_address(answer, *parse_question(answer),
                     [&](const IpAddress& address, u32) { found += address.text() + " "; });
    return found;
  };
  for (const char* const name : {"web", "WEB.network"}) {
    guest.send_udp(4000, {kDns, 53}, query(7, name));
    const auto answer = reply(guest);
    ASSERT_TRUE(answer) << name;
    EXPECT_EQ(addresses(*answer), "10.88.0.7 ");
  }
  // It exists, but has no IPv6 address.
  guest.send_udp(4000, {kDns, 53}, query(8, "web", kDnsTypeAaaa));
  const auto six = reply(guest);
  ASSERT_TRUE(six);
  EXPECT_EQ((*six)[3] & 15, 0);
  EXPECT_EQ(load_be16(six->data() + 6), 0);
  guest.send_udp(4000, {kDns, 53}, query(9, "7.0.88.10.in-addr.arpa", kDnsTypePtr));
  const auto reverse = reply(guest);
  ASSERT_TRUE(reverse);
  const std::vector<u8> target = wire_name("web.network");
  ASSERT_GE(reverse->size(), target.size());
  EXPECT_TRUE(std::equal(target.rbegin(), target.rend(), reverse->rbegin()));
  // The world.
  guest.send_udp(4000, {kDns, 53}, query(10, "a.example"));
  ASSERT_TRUE(world.question(guest));
  // One that is gone is nobody's: a name like others.
  names->remove("web", 0x0a580007);
  guest.send_udp(4000, {kDns, 53}, query(11, "web"));
  const auto gone = reply(guest);
  ASSERT_TRUE(gone);
  EXPECT_EQ((*gone)[3] & 15, 5);
}

TEST(Dns, ResolvConf) {
  const auto found = parse_resolv_conf(
      "# comment\nsearch x\n nameserver 192.0.2.1\nnameserver\tfd00::1 \nnameserver fe80::1%eth0\n"
      "nameserver x\nnameserver 192.0.2.3\nnameserver 192.0.2.4");
  ASSERT_EQ(found.size(), 3u);
  EXPECT_EQ(found[1].text(), "[fd00::1]:53");
  EXPECT_EQ(found[2].text(), "192.0.2.3:53");
  EXPECT_TRUE(parse_resolv_conf("").empty());
}

TEST(DnsMessage, HostileNames) {
  auto loop = query(1, "a");
  loop.resize(12);
  loop.insert(loop.end(), {0xc0, 12, 0, 1, 0, 1});
  EXPECT_FALSE(parse_question(loop));
  auto cut = query(1, "example.org");
  cut.resize(cut.size() - 1);
  EXPECT_FALSE(parse_question(cut));
  EXPECT_FALSE(parse_question(ConstByteSpan(cut).first(5)));
  // A dot inside a label is not a label's end.
  auto dotted = query(1, "axexample.org");
  dotted[14] = '.';
  EXPECT_EQ(parse_question(dotted)->name, "a\\046example.org");
}

TEST(DnsMessage, OnlyAddressesOfTheName) {
  auto message = answer_of(query(1, "www.example.org"));
  const auto alias = wire_name("alias.example.net");
  add_record(message, {0xc0, 12}, kDnsTypeCname, 60, alias);
  add_record(message, alias, kDnsTypeA, 30, {192, 0, 2, 1});
  add_record(message, wire_name("bank.example"), kDnsTypeA, 30, {192, 0, 2, 2});
  add_record(message, {0xc0, 12}, kDnsTypeA, 30, {192, 0, 2});  // too short
  std::vector<std::string> found;
  for_each_address(message, *parse_question(message),
                   [&](const IpAddress& address, u32) { found.push_back(address.text()); });
  EXPECT_EQ(found, std::vector<std::string>{"192.0.2.1"});
}

class PolicyTest : public ::testing::Test {
 protected:
  PolicyTest() {
    log_ =
        (std::filesystem::temp_directory_path() / fmt::format("smol-egress-{}.jsonl", ::getpid()))
            .string();
    std::filesystem::remove(log_);
    config_.egress_log = log_;
    config_.resolvers = {resolver_.host.endpoint};
    config_.allow.emplace();
  }
  ~PolicyTest() override { std::filesystem::remove(log_); }
  void allow(const char* rule) { config_.allow->push_back(*EgressRule::parse(rule)); }
  std::string log() const { return *base::read_text_file(log_); }
  // The guest asks, the resolver answers with the address.
  void resolve(FakeGuest& guest, const char* name, std::vector<u8> address) {
    guest.send_udp(4000, {kDns, 53}, query(9, name));
    const auto asked = resolver_.question(guest);
    ASSERT_TRUE(asked) << name;
    auto message = answer_of(*asked);
    add_record(message, {0xc0, 12}, kDnsTypeA, 1, address);
    resolver_.answer(message);
    ASSERT_TRUE(reply(guest));
  }
  // Whether a SYN is answered by RST at once.
  static bool refused(FakeGuest& guest, const char* address, u16 port) {
    static u16 source = 20000;
    FakeTcp tcp(guest, {guest.address(), ++source}, {IpAddress::literal(address), port});
    tcp.send(TcpTable::kSyn, 1);
    tcp.flush();
    const auto answer = guest.next();
    if (!answer || !answer->ip) return false;
    const auto segment = tcp.take(*answer);
    return segment && (segment->flags & TcpTable::kRst) != 0;
  }
  Resolver resolver_;
  NatConfig config_;
  std::string log_;
};

TEST_F(PolicyTest, PrefixesAndPorts) {
  HostSocket host(SOCK_STREAM), other(SOCK_STREAM);
  allow(fmt::format("10.0.2.2:{}", host.endpoint.port).c_str());
  FakeGuest guest(config_);
  EXPECT_FALSE(refused(guest, "10.0.2.2", host.endpoint.port));
  EXPECT_TRUE(refused(guest, "10.0.2.2", other.endpoint.port));
  EXPECT_TRUE(refused(guest, "192.0.2.1", 443));
  const std::string lines = log();
  EXPECT_NE(lines.find(fmt::format("\"proto\":\"tcp\",\"dst\":\"10.0.2.2\",\"port\":{}",
                                   other.endpoint.port)),
            std::string::npos)
      << lines;
  EXPECT_NE(lines.find("\"dst\":\"192.0.2.1\",\"port\":443,\"reason\":\"not allowed\"}\n"),
            std::string::npos)
      << lines;
  EXPECT_EQ(lines.find(fmt::format("\"port\":{}", host.endpoint.port)), std::string::npos);
  // UDP and echo are told by ICMP.
  guest.send_udp(5000, {IpAddress::literal("192.0.2.1"), 53}, bytes_of("x"));
  const auto udp = guest.wait();
  ASSERT_TRUE(udp);
  EXPECT_EQ(udp->l4()[0], 3);
  EXPECT_EQ(udp->l4()[1], 13);
  const u8 ping[8] = {8};
  guest.transmit(
      FakeGuest::ip_frame(guest.address(), IpAddress::literal("192.0.2.1"), kIpIcmp, ping));
  guest.done();
  EXPECT_EQ(guest.wait()->l4()[1], 13);
}

// A rule may name what the user added; an address of the host, too.
TEST_F(PolicyTest, AddedNamesCanBeAllowed) {
  HostSocket host(SOCK_STREAM);
  allow(fmt::format("me:{}", host.endpoint.port).c_str());
  ASSERT_TRUE(add_host_name("me:host-gateway", config_));
  FakeGuest guest(config_);
  EXPECT_TRUE(refused(guest, "10.0.2.2", host.endpoint.port)) << "not asked for yet";
  guest.send_udp(4000, {kDns, 53}, query(7, "me"));
  ASSERT_TRUE(reply(guest));
  EXPECT_FALSE(refused(guest, "10.0.2.2", host.endpoint.port));
  EXPECT_TRUE(refused(guest, "10.0.2.2", static_cast<u16>(host.endpoint.port ^ 1)));
}

TEST_F(PolicyTest, NamesTeachAddresses) {
  allow("allowed.example");
  allow("*.wild.example:443");
  FakeGuest guest(config_);
  EXPECT_TRUE(refused(guest, "198.51.100.1", 443));
  resolve(guest, "allowed.example", {198, 51, 100, 1});
  EXPECT_FALSE(refused(guest, "198.51.100.1", 443));
  EXPECT_TRUE(refused(guest, "198.51.100.2", 443));
  resolve(guest, "a.wild.example", {198, 51, 100, 3});
  EXPECT_FALSE(refused(guest, "198.51.100.3", 443));
  EXPECT_TRUE(refused(guest, "198.51.100.3", 80));
  EXPECT_NE(log().find("\"host\":\"a.wild.example\",\"reason\":\"not allowed\""),
            std::string::npos);
  // An answer cannot open the link or the host's loopback.
  resolve(guest, "allowed.example", {10, 0, 2, 2});
  EXPECT_TRUE(refused(guest, "10.0.2.2", 80));

  for (const char* name :
       {"wild.example", "other.example", "notallowed.example", "allowed.example.evil.example"}) {
    guest.send_udp(4000, {kDns, 53}, query(77, name));
    const auto got = reply(guest);
    ASSERT_TRUE(got);
    EXPECT_EQ(load_be16(got->data()), 77);
    EXPECT_EQ((*got)[3] & 15, 5) << name;
    EXPECT_NE(log().find(fmt::format("\"host\":\"{}\",\"reason\":\"name not allowed\"", name)),
              std::string::npos);
  }
  EXPECT_FALSE(resolver_.question(guest, 20));
}

TEST_F(PolicyTest, LogIsLimitedAndEscaped) {
  FakeGuest guest(config_);
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(refused(guest, "192.0.2.1", 443));
  const std::string lines = log();
  const auto count = std::count(lines.begin(), lines.end(), '\n');
  EXPECT_GE(count, EgressLog::kPerSecond);
  EXPECT_LE(count, 3 * EgressLog::kPerSecond);
  Policy policy(config_, std::move(*EgressLog::open(log_)));
  EXPECT_FALSE(policy.allows_name("a\"b\\c\x01\n", 1'000'000));
  EXPECT_NE(log().find("\"host\":\"a\\\"b\\\\c\\u0001\\u000a\""), std::string::npos);
}

TEST_F(PolicyTest, LearnedAddressesExpire) {
  allow("allowed.example");
  Policy policy(config_, std::move(*EgressLog::open("")));
  const auto address = IpAddress::literal("198.51.100.1");
  policy.learn("allowed.example", address, 300, 1000);
  EXPECT_TRUE(policy.allows("tcp", address, 80, 1000 + 299'999));
  EXPECT_FALSE(policy.allows("tcp", address, 80, 1000 + 300'000));
  policy.learn("allowed.example", address, 0, 1000);
  EXPECT_TRUE(policy.allows("tcp", address, 80, 1000 + Policy::kMinimumTtlMs - 1));
  for (u32 i = 0; i < 3 * Policy::kMaxAddresses; ++i)  // bounded
    policy.learn("allowed.example", IpAddress::v4(0x0b000000 + i), 1, 1000);
}

TEST_F(PolicyTest, DnsOverTcp) {
  HostSocket server(SOCK_STREAM);
  config_.resolvers = {server.endpoint};
  allow("allowed.example");
  FakeGuest guest(config_);
  const auto framed = [](const std::vector<u8>& message) {
    std::string text(2, '\0');
    store_be16(reinterpret_cast<u8*>(text.data()), static_cast<u16>(message.size()));
    return text.append(message.begin(), message.end());
  };
  FakeTcp tcp(guest, {guest.address(), 30000}, {kDns, 53});
  ASSERT_TRUE(tcp.connect());
  const auto peer = server.accept();
  const std::string question = framed(query(5, "allowed.example"));
  tcp.send_text(question.substr(0, 7));
  tcp.send_text(question.substr(7));
  std::string got(question.size(), '\0');
  ASSERT_TRUE(guest.until([&] {
    return ::recv(peer.get(), got.data(), got.size(), MSG_DONTWAIT | MSG_PEEK) ==
           static_cast<ssize_t>(got.size());
  }));
  EXPECT_EQ(::recv(peer.get(), got.data(), got.size(), MSG_DONTWAIT),
            static_cast<ssize_t>(got.size()));
  EXPECT_EQ(got, question);
  auto message = answer_of(query(5, "allowed.example"));
  add_record(message, {0xc0, 12}, kDnsTypeA, 60, {198, 51, 100, 9});
  const std::string answer = framed(message);
  EXPECT_EQ(::send(peer.get(), answer.data(), answer.size(), 0),
            static_cast<ssize_t>(answer.size()));
  EXPECT_EQ(tcp.read(answer.size()), answer);
  EXPECT_FALSE(refused(guest, "198.51.100.9", 80));
  // A name that is not allowed ends the connection before the resolver hears it.
  tcp.send_text(framed(query(6, "other.example")));
  tcp.read(1);
  EXPECT_TRUE(tcp.reset);
  char byte;
  EXPECT_TRUE(guest.until([&] { return ::recv(peer.get(), &byte, 1, MSG_DONTWAIT) <= 0; }));
}

}  // namespace
}  // namespace smol::net::user::testing

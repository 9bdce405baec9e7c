#include "net/segment_services.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "net/offload.h"

namespace smol::net {
namespace {

constexpr MacAddress kGuest = {0x52, 0x54, 0, 0, 0, 7};
constexpr u32 kGuestIp = 0x0a580007, kService = 0x0a580001;

std::string be16(u32 value) { return {static_cast<char>(value >> 8), static_cast<char>(value)}; }
std::string be32(u32 value) { return be16(value >> 16) + be16(value & 0xffff); }
std::string text(const MacAddress& mac) { return {reinterpret_cast<const char*>(mac.data()), 6}; }
ConstByteSpan bytes(const std::string& from) {
  return {reinterpret_cast<const u8*>(from.data()), from.size()};
}
const std::string kAll(6, '\xff');

struct Services : ::testing::Test {
  SegmentServices services{{.mac = kGuest, .guest_ip = kGuestIp, .name = "web", .mtu = 9000},
                           [](std::string_view name) -> std::optional<u32> {
                             if (name == "db") return 0x0a580102;
                             return std::nullopt;
                           },
                           [](u32 address) -> std::optional<std::string> {
                             if (address == 0x0a580102) return "db";
                             return std::nullopt;
                           }};
  std::string answer(const std::string& frame) {
    const auto reply = services.answer(bytes(frame));
    return {reply.begin(), reply.end()};
  }
  static std::string ip(u8 protocol, u32 from, u32 to, const std::string& payload,
                        const std::string& mac = text(SegmentServices::kMac)) {
    return mac + text(kGuest) + be16(0x0800) + "\x45" + std::string(1, 0) +
           be16(20 + static_cast<u32>(payload.size())) + std::string(5, 0) +
           static_cast<char>(protocol) + be16(0) + be32(from) + be32(to) + payload;
  }
  static std::string udp(u16 from, u16 to, const std::string& payload) {
    return be16(from) + be16(to) + be16(8 + static_cast<u32>(payload.size())) + be16(0) + payload;
  }
  // The payload of a UDP answer, whose checksums are looked at.
  static std::string payload_of(const std::string& reply) {
    if (reply.size() < 42) return "";
    EXPECT_EQ(fold_checksum(add_checksum(bytes(reply).subspan(14, 20))), 0);
    const auto segment = bytes(reply).subspan(34);
    EXPECT_EQ(fold_checksum(add_checksum(
                  segment, add_checksum(bytes(reply).subspan(26, 8), 17 + segment.size()))),
              0);
    return reply.substr(42);
  }
  std::string dns(const std::string& name, u16 type, u16 kind = 1,
                  const std::string& flags = std::string("\1\0", 2)) {
    std::string question;
    std::string_view rest = name;
    while (!rest.empty()) {
      const std::string_view label = rest.substr(0, rest.find('.'));
      question += static_cast<char>(label.size());
      question += label;
      rest = label.size() == rest.size() ? "" : rest.substr(label.size() + 1);
    }
    question += '\0' + be16(type) + be16(kind);
    return payload_of(
        answer(ip(17, kGuestIp, kService,
                  udp(5555, 53, "ID" + flags + be16(1) + std::string(6, 0) + question))));
  }
  static std::string dhcp(u8 type, const std::string& options = "",
                          const std::string& mac = text(kGuest)) {
    std::string request = "\1\1\6" + std::string(1, 0) + "XXXX" + std::string(20, 0) + mac +
                          std::string(10 + 192, 0) + "\x63\x82\x53\x63";
    request += "\x35\1" + std::string(1, static_cast<char>(type)) + options + "\xff";
    return ip(17, 0, 0xffffffff, udp(68, 67, request), kAll);
  }
};

TEST_F(Services, AnswersArpForItselfOnly) {
  const auto request = [&](u32 target) {
    return kAll + text(kGuest) + be16(0x0806) + std::string("\0\1\x08\0\6\4\0\1", 8) +
           text(kGuest) + be32(kGuestIp) + std::string(6, 0) + be32(target);
  };
  EXPECT_TRUE(services.is_ours(bytes(request(kService))));
  EXPECT_FALSE(services.is_ours(bytes(request(kGuestIp + 1))));
  const std::string reply = answer(request(kService));
  ASSERT_EQ(reply.size(), 60u);
  EXPECT_EQ(reply.substr(0, 14), text(kGuest) + text(SegmentServices::kMac) + be16(0x0806));
  EXPECT_EQ(reply.substr(20, 22),
            be16(2) + text(SegmentServices::kMac) + be32(kService) + text(kGuest) + be32(kGuestIp));
  EXPECT_EQ(answer(request(kGuestIp + 1)), "");
  EXPECT_EQ(answer(request(kService).substr(0, 41)), "");
}

TEST_F(Services, AnswersEcho) {
  const std::string reply =
      answer(ip(1, kGuestIp, kService, std::string("\x08\0\0\0\1\2\3\4ping", 12)));
  ASSERT_EQ(reply.size(), 14u + 20 + 12);
  EXPECT_EQ(reply[34], 0);
  EXPECT_EQ(reply.substr(38), std::string("\1\2\3\4ping"));
  EXPECT_EQ(fold_checksum(add_checksum(bytes(reply).subspan(34))), 0);
  EXPECT_EQ(answer(ip(1, kGuestIp, kService + 1, std::string("\x08\0\0\0\1\2\3\4ping", 12))), "");
  EXPECT_EQ(answer(ip(6, kGuestIp, kService, std::string(20, 0))), "");
}

TEST_F(Services, NamesOfMembers) {
  const std::string known = dns("db", 1);
  EXPECT_EQ(known.substr(0, 12), std::string("ID\x85\0\0\1\0\1\0\0\0\0", 12));
  EXPECT_EQ(known.substr(known.size() - 4), be32(0x0a580102));
  EXPECT_EQ(dns("DB.Network", 1).substr(dns("db.network", 1).size() - 4), be32(0x0a580102));
  EXPECT_EQ(dns("db", 28).substr(2, 6), std::string("\x85\0\0\1\0\0", 6))
      << "it exists, without IPv6";
  EXPECT_EQ(dns("nobody", 1)[3], 3);
  EXPECT_EQ(dns("nobody.network", 1)[3], 3);
  EXPECT_EQ(dns("example.org", 1)[3], 5) << "for another server to know";
  EXPECT_EQ(dns("db", 1, 3)[3], 5) << "not the Internet's class";
  const std::string reverse = dns("2.1.88.10.in-addr.arpa", 12);
  EXPECT_EQ(reverse.substr(reverse.size() - 12), std::string("\2db\7network\0", 12));
  EXPECT_EQ(dns("9.1.88.10.in-addr.arpa", 12)[3], 3);
  EXPECT_EQ(dns("999.1.88.10.in-addr.arpa", 12)[3], 5);
}

TEST_F(Services, MalformedQueries) {
  const auto raw = [&](const std::string& query) {
    return payload_of(answer(ip(17, kGuestIp, kService, udp(5555, 53, query))));
  };
  EXPECT_EQ(raw("short"), "");
  EXPECT_EQ(raw(std::string("ID\x81\0\0\1\0\0\0\0\0\0", 12)), "") << "an answer is not answered";
  EXPECT_EQ(raw(std::string("ID\1\0\0\1\0\0\0\0\0\0", 12))[3], 1);
  EXPECT_EQ(raw(std::string("ID\1\0\0\2\0\0\0\0\0\0\0\0\1\0\1", 17))[3], 1);
  EXPECT_EQ(raw(std::string("ID\1\0\0\1\0\0\0\0\0\0\xc0\x0c\0\1\0\1", 18))[3], 1)
      << "a pointer to itself";
  EXPECT_EQ(raw(std::string("ID\1\0\0\1\0\0\0\0\0\0\x3f", 13) + "abc")[3], 1);
  EXPECT_EQ(raw(std::string("ID\x11\0\0\1\0\0\0\0\0\0", 12))[3], 4) << "not a query";
}

TEST_F(Services, LeasesTheAssignedAddress) {
  EXPECT_TRUE(services.is_ours(bytes(dhcp(1))));
  const std::string frame = answer(dhcp(1));
  EXPECT_EQ(frame.substr(0, 6), kAll);
  const std::string offer = payload_of(frame);
  ASSERT_GT(offer.size(), 243u);
  EXPECT_EQ(offer[0], 2);
  EXPECT_EQ(offer.substr(4, 4), "XXXX");
  EXPECT_EQ(offer.substr(16, 4), be32(kGuestIp));
  EXPECT_EQ(offer.substr(240, 3), "\x35\1\2");
  for (const std::string& option :
       {"\x01\x04" + be32(0xffff0000), "\x06\x04" + be32(kService), std::string("\x0f\x07network"),
        std::string("\x0c\3web"), "\x1a\2" + be16(9000), "\x36\4" + be32(kService)})
    EXPECT_NE(offer.find(option, 240), std::string::npos) << int{option[0]};
  EXPECT_EQ(offer.find(std::string("\3\4"), 240), std::string::npos) << "no router";
  EXPECT_EQ(payload_of(answer(dhcp(3, "\x32\4" + be32(kGuestIp)))).substr(240, 3), "\x35\1\5");
  EXPECT_EQ(payload_of(answer(dhcp(3, "\x32\4" + be32(kGuestIp + 1)))).substr(240, 3), "\x35\1\6")
      << "not that one";
  EXPECT_EQ(answer(dhcp(1, "", "\2\2\2\2\2\2")), "") << "somebody else's";
  EXPECT_EQ(answer(dhcp(7)), "") << "a release";
  EXPECT_EQ(answer(dhcp(1).substr(0, 200)), "");
}

}  // namespace
}  // namespace smol::net

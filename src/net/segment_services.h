// What a segment's own address answers: ARP, echo, DHCP for this member's assigned address, DNS for
// the members' names.
//
// Each member's monitor answers its own guest, so that no machine of the segment is special and no
// request leaves the machine. Frames are the guest's: nothing in them is trusted, and checksums,
// which the guest may have left to us, are not looked at.
#pragma once

#include <array>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"

namespace smol::net {

using MacAddress = std::array<u8, 6>;

struct SegmentServicesConfig {
  MacAddress mac{};             // the guest's
  u32 guest_ip = 0;             // host order; 0: none, and then no DHCP
  std::string name;             // the guest's, lower case
  u32 service_ip = 0x0a580001;  // 10.88.0.1
  u8 prefix = 16;
  u16 mtu = 0;            // 0: not told
  bool gives_dns = true;  // DHCP names us as a name server: not where the guest has a better one
};

class SegmentServices {
 public:
  // Gives the addresses (host order) of members by their lower-case names, and the reverse.
  using ByName = std::function<std::optional<u32>(std::string_view)>;
  using ByAddress = std::function<std::optional<std::string>(u32)>;

  SegmentServices(SegmentServicesConfig config, ByName by_name, ByAddress by_address)
      : config_(std::move(config)),
        by_name_(std::move(by_name)),
        by_address_(std::move(by_address)) {}

  static constexpr MacAddress kMac = {0x52, 0x55, 0x0a, 0x58, 0x00, 0x01};
  // Longest frame that is of interest.
  static constexpr std::size_t kMostBytes = 1600;

  // Whether the frame with these first bytes (at least 42 of them, unless it is shorter) is ours
  // alone: then it goes nowhere else.
  bool is_ours(ConstByteSpan start) const;
  // The answer, a whole Ethernet frame; empty when there is none.
  std::vector<u8> answer(ConstByteSpan frame) const;

 private:
  std::vector<u8> answer_arp(ConstByteSpan frame) const;
  std::vector<u8> answer_echo(ConstByteSpan frame, u32 ip_size) const;
  std::vector<u8> answer_udp(ConstByteSpan frame, u32 ip_size) const;
  std::vector<u8> dhcp(ConstByteSpan request) const;
  std::vector<u8> dns(ConstByteSpan query) const;
  std::vector<u8> dns_answer(const std::string& name, u16 type, u8& code) const;
  std::vector<u8> udp_frame(const MacAddress& to, u32 to_ip, u16 from_port, u16 to_port,
                            ConstByteSpan payload) const;

  SegmentServicesConfig config_;
  ByName by_name_;
  ByAddress by_address_;
};

}  // namespace smol::net

// As much of DNS messages (RFC 1035) as a forwarder with a policy must read. Hostile on both sides:
// questions come from the guest, answers from the network.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "net/user/address.h"

namespace smol::net::user {

inline constexpr std::size_t kDnsHeader = 12;
inline constexpr u16 kDnsTypeA = 1, kDnsTypeCname = 5, kDnsTypePtr = 12, kDnsTypeAaaa = 28;
enum class DnsCode : u8 { kNoError = 0, kServerFailure = 2, kNotImplemented = 4, kRefused = 5 };

struct DnsQuestion {
  // Lower case, labels joined by dots, none at the end. Other bytes than a host name's, and dots
  // inside a label, as \ddd, so that no pattern is met by them.
  std::string name;
  u16 type = 0;
  u16 klass = 0;
  std::size_t end = 0;  // where the question section ends in the message
};

// Of a message with exactly one question.
std::optional<DnsQuestion> parse_question(ConstByteSpan message);
DnsCode dns_code(ConstByteSpan message);  // of a message of at least kDnsHeader bytes
// Calls found for each address in the answer section that belongs to the question's name, over
// CNAMEs too.
void for_each_address(ConstByteSpan message, const DnsQuestion& question,
                      const std::function<void(const IpAddress&, u32 ttl_seconds)>& found);

// An answer made here: header and question of the query, and records for the addresses that fit
// the question's type.
std::vector<u8> make_answer(ConstByteSpan query, const DnsQuestion& question, DnsCode code,
                            std::span<const IpAddress> addresses, u32 ttl_seconds);

// The same for the name that an address has.
std::vector<u8> make_pointer_answer(ConstByteSpan query, const DnsQuestion& question,
                                    std::string_view name, u32 ttl_seconds);

}  // namespace smol::net::user

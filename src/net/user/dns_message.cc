// See dns_message.h.
#include "net/user/dns_message.h"

#include <algorithm>

#include "net/peer_names.h"

namespace smol::net::user {
namespace {

constexpr int kMaxJumps = 32;

// Reads a name at `at` and moves `at` behind it. False: malformed.
bool read_name(ConstByteSpan message, std::size_t& at, std::string& name) {
  name.clear();
  std::size_t from = at;
  bool jumped = false;
  std::size_t wire = 0;
  for (int jumps = 0; jumps < kMaxJumps;) {
    if (from >= message.size()) return false;
    const u8 length = message[from];
    if ((length & 0xc0) == 0xc0) {
      if (from + 2 > message.size()) return false;
      if (!jumped) at = from + 2;
      jumped = true;
      from = load_be16(message.data() + from) & 0x3fff;
      ++jumps;
      continue;
    }
    if (length > 63 || from + 1 + length > message.size()) return false;
    if (length == 0) {
      if (!jumped) at = from + 1;
      return true;
    }
    wire += length + 1;
    if (wire > 254) return false;
    if (!name.empty()) name += '.';
    for (std::size_t i = 0; i < length; ++i) {
      const auto c = static_cast<char>(message[from + 1 + i]);
      const bool host = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
      if (c >= 'A' && c <= 'Z')
        name += static_cast<char>(c + 32);
      else if (host)
        name += c;
      else
        name += fmt::format("\\{:03}", static_cast<u8>(c));
    }
    from += 1 + length;
  }
  return false;
}

}  // namespace

std::optional<DnsQuestion> parse_question(ConstByteSpan message) {
  if (message.size() < kDnsHeader || load_be16(message.data() + 4) != 1) return std::nullopt;
  DnsQuestion question;
  std::size_t at = kDnsHeader;
  if (!read_name(message, at, question.name) || at + 4 > message.size()) return std::nullopt;
  question.type = load_be16(message.data() + at);
  question.klass = load_be16(message.data() + at + 2);
  question.end = at + 4;
  return question;
}

DnsCode dns_code(ConstByteSpan message) { return static_cast<DnsCode>(message[3] & 15); }

void for_each_address(ConstByteSpan message, const DnsQuestion& question,
                      const std::function<void(const IpAddress&, u32)>& found) {
  std::vector<std::string> names{question.name};
  std::size_t at = question.end;
  std::string owner, target;
  for (u16 left = load_be16(message.data() + 6); left != 0; --left) {
    if (!read_name(message, at, owner) || at + 10 > message.size()) return;
    const u8* record = message.data() + at;
    const u16 type = load_be16(record), klass = load_be16(record + 2);
    const u32 ttl = load_be32(record + 4);
    const std::size_t length = load_be16(record + 8);
    at += 10;
    if (at + length > message.size()) return;
    const bool ours = klass == 1 && std::ranges::find(names, owner) != names.end();
    if (ours && type == kDnsTypeCname && names.size() < 16) {
      std::size_t inner = at;
      if (read_name(message, inner, target)) names.push_back(target);
    } else if (ours && type == kDnsTypeA && length == 4) {
      found(IpAddress::from4(message.data() + at), ttl);
    } else if (ours && type == kDnsTypeAaaa && length == 16) {
      const auto address = IpAddress::from6(message.data() + at);
      if (!address.is_v4()) found(address, ttl);
    }
    at += length;
  }
}

std::vector<u8> make_pointer_answer(ConstByteSpan query, const DnsQuestion& question,
                                    std::string_view name, u32 ttl_seconds) {
  std::vector<u8> out = make_answer(query, question, DnsCode::kNoError, {}, 0);
  if (question.type != kDnsTypePtr) return out;
  std::vector<u8> target;
  append_dns_name(target, name);
  u8 record[12] = {0xc0, kDnsHeader};  // the question's name
  store_be16(record + 2, kDnsTypePtr);
  store_be16(record + 4, 1);
  store_be32(record + 6, ttl_seconds);
  store_be16(record + 10, static_cast<u16>(target.size()));
  out.insert(out.end(), record, record + sizeof record);
  out.insert(out.end(), target.begin(), target.end());
  store_be16(out.data() + 6, 1);
  return out;
}

std::vector<u8> make_answer(ConstByteSpan query, const DnsQuestion& question, DnsCode code,
                            std::span<const IpAddress> addresses, u32 ttl_seconds) {
  std::vector<u8> out(query.begin(), query.begin() + static_cast<std::ptrdiff_t>(question.end));
  out[2] = static_cast<u8>(0x80 | (query[2] & 0x79));  // an answer; opcode and RD as asked
  out[3] = static_cast<u8>(0x80 | static_cast<u8>(code));
  u16 count = 0;
  for (const IpAddress& address : addresses) {
    if (question.type != (address.is_v4() ? kDnsTypeA : kDnsTypeAaaa)) continue;
    u8 record[12] = {0xc0, kDnsHeader};  // the question's name
    store_be16(record + 2, question.type);
    store_be16(record + 4, 1);
    store_be32(record + 6, ttl_seconds);
    store_be16(record + 10, static_cast<u16>(address.wire_size()));
    out.insert(out.end(), record, record + sizeof record);
    out.insert(out.end(), address.wire(), address.wire() + address.wire_size());
    ++count;
  }
  store_be16(out.data() + 4, 1);
  store_be16(out.data() + 6, count);
  store_be32(out.data() + 8, 0);
  return out;
}

}  // namespace smol::net::user

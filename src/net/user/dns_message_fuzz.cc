// DNS messages, resolv.conf, and the texts of command lines: any bytes.
#include "base/check.h"
#include "net/user/dns.h"
#include "net/user/fuzz_input.h"
#include "net/user/nat.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace smol;
  using namespace smol::net::user;
  const ConstByteSpan bytes(data, size);
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  CHECK(parse_resolv_conf(text).size() <= 3);
  if (const auto port = PublishedPort::parse(text)) {
    const auto again = PublishedPort::parse(port->text());
    CHECK(again && again->text() == port->text());
  }
  if (const auto rule = EgressRule::parse(text)) CHECK(rule->cidr || !rule->host.empty());

  // Mostly a header that says what follows.
  std::vector<u8> message(bytes.begin(), bytes.end());
  if (size >= kDnsHeader && data[0] % 4 != 0) {
    store_be16(message.data() + 4, 1);
    store_be16(message.data() + 6, static_cast<u16>(data[1] % 8));
  }
  const auto question = parse_question(message);
  if (!question) return 0;
  CHECK(question->end <= message.size());
  for (const char c : question->name) CHECK(c > ' ' && c < 127 && !(c >= 'A' && c <= 'Z'));
  std::vector<IpAddress> found;
  for_each_address(message, *question,
                   [&](const IpAddress& address, u32) { found.push_back(address); });
  const auto answer = make_answer(message, *question, DnsCode::kNoError, found, 1);
  const auto again = parse_question(answer);
  CHECK(dns_code(answer) == DnsCode::kNoError);
  // (A compressed question may point beyond what the answer keeps.)
  if (again) CHECK(again->end == question->end);
  return 0;
}

// The DNS forwarder on the link's DNS addresses: passes queries to the host's resolvers, from a
// socket of its own each (so that the kernel picks an unforeseeable port), tries the next when one
// does not answer, refuses names that the policy does not allow, and teaches the policy addresses.
#pragma once

#include <sys/stat.h>

#include <list>
#include <vector>

#include "net/user/context.h"
#include "net/user/dns_message.h"

namespace smol::net::user {

class DnsForwarder {
 public:
  static constexpr std::size_t kMaxQueries = 256;
  static constexpr u64 kTryMs = 1500;
  static constexpr u32 kRounds = 2;  // of all resolvers

  explicit DnsForwarder(Context& context);
  ~DnsForwarder();

  // A UDP query to asked_at, copied from the guest.
  void on_query(const Endpoint& client, const IpAddress& asked_at, ConstByteSpan message);
  // Where a TCP connection goes.
  Endpoint resolver();
  void tick();
  bool timed() const { return !queries_.empty(); }
  void forget_all();

 private:
  struct Query;
  void refresh();
  bool answer_here(const Endpoint& client, const IpAddress& asked_at, ConstByteSpan message,
                   const DnsQuestion& question);
  bool answer_peer(const Endpoint& client, const IpAddress& asked_at, ConstByteSpan message,
                   const DnsQuestion& question);
  void reply(const Query& query, std::vector<u8> message);
  void try_next(Query& query);
  bool send(Query& query, const Endpoint& resolver);
  void readable(Query& query);
  void finish(Query& query);

  Context& context_;
  std::vector<Endpoint> resolvers_;
  std::size_t good_ = 0;  // the resolver that answered last
  u64 looked_ms_ = 0;     // when resolv_conf was last looked at
  struct stat seen_{};
  std::list<Query> queries_;  // oldest first
  std::vector<u8> buffer_;
};

// The nameserver lines of a resolv.conf; at most 3, as everybody reads it.
std::vector<Endpoint> parse_resolv_conf(std::string_view text);

}  // namespace smol::net::user

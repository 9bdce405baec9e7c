// See dns.h.
#include "net/user/dns.h"

#include <sys/random.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "base/log.h"

namespace smol::net::user {
namespace {

constexpr u16 kPort = 53;
constexpr u32 kLocalTtl = 60;
constexpr u32 kPeerTtl = 5;  // machines come and go

u16 random_id() {
  u16 id = 0;
  if (::getrandom(&id, sizeof id, 0) != sizeof id) id = static_cast<u16>(::rand());
  return id;
}

std::string_view next_word(std::string_view& line) {
  const auto start = line.find_first_not_of(" \t\r");
  if (start == std::string_view::npos) return line = {};
  line.remove_prefix(start);
  const auto end = std::min(line.find_first_of(" \t\r"), line.size());
  const std::string_view word = line.substr(0, end);
  line.remove_prefix(end);
  return word;
}

}  // namespace

std::vector<Endpoint> parse_resolv_conf(std::string_view text) {
  std::vector<Endpoint> found;
  while (!text.empty() && found.size() < 3) {
    const auto end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (next_word(line) != "nameserver") continue;
    if (const auto address = IpAddress::parse(next_word(line))) found.push_back({*address, kPort});
  }
  return found;
}

struct DnsForwarder::Query final : Watcher {
  Query(DnsForwarder& forwarder, const Endpoint& client, const IpAddress& asked_at)
      : forwarder(forwarder), client(client), asked_at(asked_at) {}
  void on_events(u32) override { forwarder.readable(*this); }

  DnsForwarder& forwarder;
  Endpoint client;
  IpAddress asked_at;
  u16 client_id = 0;
  std::vector<u8> message;  // with an id of ours
  DnsQuestion question;
  base::UniqueFd socket;
  std::size_t resolver = 0;
  u32 tries = 0;
  u64 deadline = 0;
  std::list<Query>::iterator self;
};

DnsForwarder::DnsForwarder(Context& context)
    : context_(context), resolvers_(context.config.resolvers) {
  buffer_.resize(65536);
  refresh();
}

DnsForwarder::~DnsForwarder() { forget_all(); }

void DnsForwarder::refresh() {
  if (!context_.config.resolvers.empty()) return;
  if (looked_ms_ != 0 && context_.now_ms < looked_ms_ + 1000) return;
  looked_ms_ = std::max<u64>(context_.now_ms, 1);
  struct stat now{};
  const bool there = ::stat(context_.config.resolv_conf.c_str(), &now) == 0;
  const bool same = now.st_ino == seen_.st_ino && now.st_dev == seen_.st_dev &&
                    now.st_size == seen_.st_size && now.st_mtim.tv_sec == seen_.st_mtim.tv_sec &&
                    now.st_mtim.tv_nsec == seen_.st_mtim.tv_nsec;
  if (there && same && !resolvers_.empty()) return;
  seen_ = now;
  const auto text = base::read_text_file(context_.config.resolv_conf);
  if (!text) base::log_debug("network: {}", text.error().chain());
  if (text) resolvers_ = parse_resolv_conf(*text);
  // resolv.conf(5): without an entry, the name server on the local machine.
  if (resolvers_.empty()) resolvers_ = {{IpAddress::v4(0x7f000001), kPort}};
  good_ = 0;
}

Endpoint DnsForwarder::resolver() {
  refresh();
  return resolvers_[good_ % resolvers_.size()];
}

bool DnsForwarder::answer_here(const Endpoint& client, const IpAddress& asked_at,
                               ConstByteSpan message, const DnsQuestion& question) {
  std::vector<IpAddress> addresses;
  bool known = false;
  for (const HostName& entry : context_.config.names) {
    if (entry.name != question.name) continue;
    known = true;
    addresses.push_back(entry.address);
    context_.policy.learn_given(entry.name, entry.address, kLocalTtl, context_.now_ms);
  }
  DnsCode code = DnsCode::kNoError;
  if (!known) {
    if (answer_peer(client, asked_at, message, question)) return true;
    if (context_.policy.allows_name(question.name, context_.now_ms)) return false;
    code = DnsCode::kRefused;
  }
  const auto answer = make_answer(message, question, code, addresses, kLocalTtl);
  context_.link.send_udp({asked_at, kPort}, client, answer);
  return true;
}

// Machines on the guest's segments, before any rule: those networks are the guest's own.
bool DnsForwarder::answer_peer(const Endpoint& client, const IpAddress& asked_at,
                               ConstByteSpan message, const DnsQuestion& question) {
  const PeerNames* const peers = context_.config.peers.get();
  if (peers == nullptr) return false;
  std::vector<u8> answer;
  if (const auto address = reverse_address(question.name)) {
    const auto name = peers->name_of(*address);
    if (!name) return false;
    answer = make_pointer_answer(message, question, fmt::format("{}.{}", *name, kSegmentDomain),
                                 kPeerTtl);
  } else {
    const auto found = peers->address_of(question.name);
    if (!found) return false;
    const IpAddress addresses[] = {IpAddress::v4(*found)};
    answer = make_answer(message, question, DnsCode::kNoError, addresses, kPeerTtl);
  }
  context_.link.send_udp({asked_at, kPort}, client, answer);
  return true;
}

void DnsForwarder::on_query(const Endpoint& client, const IpAddress& asked_at,
                            ConstByteSpan message) {
  const auto question = parse_question(message);
  const bool is_query = message.size() >= kDnsHeader && (message[2] & 0x80) == 0;
  if (!question || !is_query) return;
  if (answer_here(client, asked_at, message, *question)) return;
  const u16 id = load_be16(message.data());
  for (const Query& query : queries_)
    if (query.client == client && query.client_id == id) return;  // asked again: on its way
  if (queries_.size() >= kMaxQueries) finish(queries_.front());
  refresh();
  Query& query = queries_.emplace_back(*this, client, asked_at);
  query.self = std::prev(queries_.end());
  query.client_id = id;
  query.message.assign(message.begin(), message.end());
  query.question = *question;
  query.resolver = good_;
  try_next(query);
}

void DnsForwarder::try_next(Query& query) {
  while (query.tries < kRounds * resolvers_.size()) {
    if (query.tries++ != 0) ++query.resolver;
    if (send(query, resolvers_[query.resolver % resolvers_.size()])) return;
  }
  reply(query, make_answer(query.message, query.question, DnsCode::kServerFailure, {}, 0));
  finish(query);
}

bool DnsForwarder::send(Query& query, const Endpoint& resolver) {
  if (query.socket.valid()) context_.poller.remove(query.socket.get(), query);
  const int family = resolver.address.is_v4() ? AF_INET : AF_INET6;
  query.socket.reset(::socket(family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!query.socket.valid()) return false;
  sockaddr_storage address{};
  const socklen_t size = resolver.to(address);
  if (::connect(query.socket.get(), reinterpret_cast<const sockaddr*>(&address), size) != 0) {
    query.socket.reset();
    return false;
  }
  store_be16(query.message.data(), random_id());
  const ssize_t sent =
      ::send(query.socket.get(), query.message.data(), query.message.size(), MSG_NOSIGNAL);
  if (sent < 0 || !context_.poller.add(query.socket.get(), Poller::kRead, query)) {
    query.socket.reset();
    return false;
  }
  query.deadline = context_.now_ms + kTryMs;
  return true;
}

void DnsForwarder::readable(Query& query) {
  for (;;) {
    const ssize_t count = ::recv(query.socket.get(), buffer_.data(), buffer_.size(), MSG_DONTWAIT);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) return;
    if (count < 0) return try_next(query);  // nobody listens there
    const auto answer = ConstByteSpan(buffer_).first(static_cast<std::size_t>(count));
    const auto question = parse_question(answer);
    const bool fits = question && (answer[2] & 0x80) != 0 &&
                      std::equal(answer.begin(), answer.begin() + 2, query.message.begin()) &&
                      question->name == query.question.name &&
                      question->type == query.question.type;
    if (!fits) continue;  // not the answer; keep waiting
    const DnsCode code = dns_code(answer);
    const bool unable = code == DnsCode::kServerFailure || code == DnsCode::kRefused ||
                        code == DnsCode::kNotImplemented;
    if (unable && query.tries < resolvers_.size()) return try_next(query);
    good_ = query.resolver % resolvers_.size();
    for_each_address(answer, *question, [&](const IpAddress& address, u32 ttl) {
      context_.policy.learn(question->name, address, ttl, context_.now_ms);
    });
    reply(query, {answer.begin(), answer.end()});
    return finish(query);
  }
}

void DnsForwarder::reply(const Query& query, std::vector<u8> message) {
  store_be16(message.data(), query.client_id);
  // Without room the answer is lost, as datagrams may be, and the guest asks again.
  context_.link.send_udp({query.asked_at, kPort}, query.client, message);
}

void DnsForwarder::finish(Query& query) {
  if (query.socket.valid()) context_.poller.remove(query.socket.get(), query);
  queries_.erase(query.self);
}

void DnsForwarder::tick() {
  for (auto at = queries_.begin(); at != queries_.end();) {
    Query& query = *at++;
    if (context_.now_ms >= query.deadline) try_next(query);
  }
}

void DnsForwarder::forget_all() {
  while (!queries_.empty()) finish(queries_.front());
}

}  // namespace smol::net::user

#include "fetch/client.h"

#include <strings.h>

#include <algorithm>

#include "base/fd.h"

namespace smol::fetch {
namespace {

constexpr std::size_t kChunk = 64 * kKiB;

bool is_name(std::string_view left, std::string_view right) {
  return left.size() == right.size() && ::strncasecmp(left.data(), right.data(), left.size()) == 0;
}

bool is_redirect(int status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

u64 body_size(const Request& request) {
  return request.body_fd >= 0 ? request.body_size : request.body.size();
}

Failure around(const Url& url, Failure inner) {
  return {inner.problem, Error(url.origin()).because_of(std::move(inner.error))};
}

}  // namespace

std::string_view Response::header(std::string_view name) const {
  for (const auto& [key, value] : headers)
    if (is_name(key, name)) return value;
  return {};
}

Client::Client(ClientOptions options) : options_(std::move(options)) {}
Client::~Client() = default;

Fetched<Response> Client::send(const Request& request) {
  Url url = request.url;
  for (u32 turn = 0; turn <= options_.redirects; ++turn) {
    auto response = exchange(request, url, url.same_origin(request.url));
    if (!response) return std::unexpected(around(url, response.error()));
    const std::string location(response->header("location"));
    // A body is sent again only where the answer says so; what POST's 303 leads to is the caller's.
    const bool follows = request.has_body ? response->status == 307 || response->status == 308
                                          : is_redirect(response->status);
    if (!follows || location.empty()) {
      response->url = url;
      return response;
    }
    auto next = resolve_url(url, location);
    if (!next)
      return failure(Problem::kProtocol, "{} redirects to nowhere: {}", url.origin(),
                     next.error().chain());
    if (url.tls && !next->tls)
      return failure(Problem::kProtocol, "{} redirects to an address without TLS, {}", url.origin(),
                     next->origin());
    url = std::move(*next);
  }
  return failure(Problem::kProtocol, "{} redirects more than {} times", request.url.origin(),
                 options_.redirects);
}

Fetched<Response> Client::exchange(const Request& request, const Url& url, bool credentials) {
  std::optional<Url> proxy;
  if (options_.proxies) {
    auto found = proxy_for(url);
    if (!found) return std::unexpected(found.error());
    proxy = std::move(*found);
  }
  const std::string origin = url.origin();
  for (;;) {
    std::unique_ptr<Connection> connection;
    const auto kept = idle_.find(origin);
    const bool reused = kept != idle_.end();
    if (reused) {
      connection = std::move(kept->second);
      idle_.erase(kept);
      if (connection->readable()) continue;  // a good-bye
    } else {
      auto opened = Connection::open(url, proxy, options_.tls, options_.waits, options_.cancel);
      if (!opened) return std::unexpected(opened.error());
      connection = std::move(*opened);
    }
    bool reusable = false, answered = false;
    auto response =
        exchange_on(*connection, request, url, credentials, proxy && !url.tls, reusable, answered);
    if (!response && reused && !answered && response.error().problem == Problem::kCut)
      continue;  // the server had closed it
    if (response && reusable) idle_[origin] = std::move(connection);
    return response;
  }
}

std::string Client::head_of(const Request& request, const Url& url, bool credentials, bool proxied,
                            const std::optional<Url>& proxy) const {
  std::string head =
      fmt::format("{} {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: {}\r\n", request.method,
                  proxied ? url.text() : url.target, url.authority(), options_.user_agent);
  for (const auto& [name, value] : request.headers)
    if (credentials || !is_name(name, "authorization"))
      head += fmt::format("{}: {}\r\n", name, value);
  if (proxied && proxy && !proxy->user.empty())
    head += "Proxy-Authorization: Basic " + base64(proxy->user) + "\r\n";
  if (request.has_body) head += fmt::format("Content-Length: {}\r\n", body_size(request));
  return head + "\r\n";
}

Fetched<Response> Client::exchange_on(Connection& connection, const Request& request,
                                      const Url& url, bool credentials, bool proxied,
                                      bool& reusable, bool& answered) {
  std::optional<Url> proxy;
  if (proxied) {
    auto found = proxy_for(url);
    if (found) proxy = std::move(*found);
  }
  const std::string head = head_of(request, url, credentials, proxied, proxy);
  auto sent = connection.write({reinterpret_cast<const u8*>(head.data()), head.size()});
  if (!sent) return std::unexpected(sent.error());
  bool whole = true;
  if (request.has_body) {
    auto body = send_body(connection, request);
    if (!body) return std::unexpected(body.error());
    whole = *body;
  }
  auto response = read_answer(connection, request, reusable, answered);
  reusable = reusable && whole;
  return response;
}

// false: the server has answered (or closed) before it had all.
Fetched<bool> Client::send_body(Connection& connection, const Request& request) {
  std::vector<u8> buffer(request.body_fd >= 0 ? kChunk : 0);
  const u64 size = body_size(request);
  for (u64 done = 0; done < size;) {
    if (connection.readable()) return false;
    const std::size_t part = std::min<u64>(size - done, kChunk);
    ConstByteSpan bytes;
    if (request.body_fd >= 0) {
      const ByteSpan into(buffer.data(), part);
      auto got = base::read_exact_at(request.body_fd, into, request.body_offset + done, "the body");
      if (!got) return std::unexpected(Failure{Problem::kLocal, got.error()});
      bytes = into;
    } else {
      bytes = {reinterpret_cast<const u8*>(request.body.data()) + done, part};
    }
    auto sent = connection.write(bytes);
    if (!sent && sent.error().problem == Problem::kCut && connection.readable()) return false;
    if (!sent) return std::unexpected(sent.error());
    done += part;
    if (request.on_sent) request.on_sent(done);
  }
  return true;
}

Fetched<> Client::take_body(const Request& request, Response& response, std::string& body) {
  if (body.empty()) return {};
  if (request.sink && response.status / 100 == 2) {
    auto taken = request.sink({reinterpret_cast<const u8*>(body.data()), body.size()});
    if (!taken) return std::unexpected(Failure{Problem::kLocal, taken.error()});
  } else {
    if (body.size() > request.body_limit - response.body.size())
      return failure(Problem::kLimit, "the answer is longer than {} bytes", request.body_limit);
    response.body += body;
  }
  body.clear();
  return {};
}

Fetched<Response> Client::read_answer(Connection& connection, const Request& request,
                                      bool& reusable, bool& answered) {
  auto parser = std::make_unique<ResponseParser>(options_.header_limit, request.method == "HEAD");
  Response response;
  std::string pending, body;
  std::vector<u8> buffer(kChunk);
  bool header_seen = false;
  for (;;) {
    if (pending.empty()) {
      auto got = connection.read(buffer);
      if (!got) return std::unexpected(got.error());
      if (*got == 0) {
        if (!header_seen || !parser->finish())
          return failure(Problem::kCut, "the connection ended in the middle of the answer");
        return response;
      }
      answered = true;
      pending.assign(reinterpret_cast<const char*>(buffer.data()), *got);
    }
    auto used = parser->put(pending, body);
    if (!used) return std::unexpected(Failure{Problem::kProtocol, used.error()});
    pending.erase(0, *used);
    if (parser->header_done() && !header_seen) {
      response.status = parser->status();
      if (response.status / 100 == 1 && response.status != 101) {  // more is to come
        parser = std::make_unique<ResponseParser>(options_.header_limit, request.method == "HEAD");
        continue;
      }
      header_seen = true;
      response.headers = parser->headers();
      if (request.on_header && response.status / 100 == 2)
        if (auto taken = request.on_header(response); !taken)
          return std::unexpected(Failure{Problem::kLocal, taken.error()});
    }
    if (header_seen)
      if (auto taken = take_body(request, response, body); !taken)
        return std::unexpected(taken.error());
    if (parser->done()) {
      reusable = parser->keep_alive() && pending.empty();
      return response;
    }
    if (*used == 0 && !pending.empty()) {  // an incomplete line: more is needed
      auto got = connection.read(buffer);
      if (!got) return std::unexpected(got.error());
      if (*got == 0)
        return failure(Problem::kCut, "the connection ended in the middle of the answer");
      pending.append(reinterpret_cast<const char*>(buffer.data()), *got);
    }
  }
}

}  // namespace smol::fetch

// An HTTP/1.1 client for registries: one request at a time, bodies streamed both ways, redirects,
// proxies (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY), connections kept for the next request. No
// exception leaves it. HTTP/2 would bring a library and nothing that a few large bodies need.
//
// A Client is used by one thread; several Clients may be used at once.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "fetch/connection.h"
#include "fetch/failure.h"
#include "fetch/response_parser.h"
#include "fetch/url.h"

namespace smol::fetch {

struct Response {
  int status = 0;
  Headers headers;
  std::string body;  // unless a sink took it
  Url url;           // after redirects

  // The first header of that name, in whatever case; "" without.
  std::string_view header(std::string_view name) const;
};

struct Request {
  std::string method = "GET";
  Url url;
  Headers headers;
  bool has_body = false;  // with Content-Length: from `body`, or from body_fd at body_offset
  std::string_view body;
  int body_fd = -1;
  u64 body_offset = 0, body_size = 0;

  // Called when the header of an answer 2xx is there, before its body goes to the sink.
  std::function<Result<>(const Response&)> on_header;
  // Takes the body of an answer 2xx; an Error ends the request. Other answers' bodies, and all
  // without a sink, are gathered.
  std::function<Result<>(ConstByteSpan)> sink;
  // Called with the number of bytes of the body sent so far.
  std::function<void(u64)> on_sent;
  u64 body_limit = 8 * kMiB;  // of a gathered body; longer ones are an Error
};

struct ClientOptions {
  TlsOptions tls;
  Waits waits;
  u32 header_limit = 64 * kKiB;
  u32 redirects = 10;
  bool proxies = true;  // those of the environment
  const std::atomic<bool>* cancel = nullptr;
  std::string user_agent = "smolvm";
};

class Client {
 public:
  explicit Client(ClientOptions options);
  ~Client();

  // Redirects are followed; Authorization stays with its origin, and https never becomes http.
  Fetched<Response> send(const Request& request);
  const ClientOptions& options() const { return options_; }

 private:
  Fetched<Response> exchange(const Request& request, const Url& url, bool credentials);
  Fetched<Response> exchange_on(Connection& connection, const Request& request, const Url& url,
                                bool credentials, bool proxied, bool& reusable, bool& answered);
  Fetched<bool> send_body(Connection& connection, const Request& request);
  Fetched<Response> read_answer(Connection& connection, const Request& request, bool& reusable,
                                bool& answered);
  Fetched<> take_body(const Request& request, Response& response, std::string& body);
  std::string head_of(const Request& request, const Url& url, bool credentials, bool proxied,
                      const std::optional<Url>& proxy) const;

  ClientOptions options_;
  std::map<std::string, std::unique_ptr<Connection>> idle_;  // by origin
};

// The proxy that the environment names for this address; localhost never has one.
Fetched<std::optional<Url>> proxy_for(const Url& url);
// Whether NO_PROXY's list names the host: "*", "host", "host:port", ".domain", "domain" (and
// below), "10.0.0.0/8".
bool is_excluded(std::string_view list, const std::string& host, u16 port);

}  // namespace smol::fetch

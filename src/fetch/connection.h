// A stream of bytes to a server: TCP, perhaps through an HTTP proxy, perhaps with TLS; the proxy,
// too, may be spoken to by TLS.
//
// Choice: non-blocking sockets and poll(2) on the caller's thread, with OpenSSL between two memory
// BIOs. So every wait has a deadline and can be called off, a broken connection raises no signal,
// and TLS runs over whatever is below. Asio would bring its own resolver (getaddrinfo), exceptions
// and hundreds of kilobytes for what is here one loop.
#pragma once

#include <memory>
#include <optional>

#include "base/bytes.h"
#include "base/fd.h"
#include "fetch/failure.h"
#include "fetch/url.h"

namespace smol::fetch {

struct TlsOptions {
  std::string ca_file;  // trusted beside the system's; "" for none
  bool verify = true;
};
struct Waits {
  u64 connect_ms = 30'000;  // for the name, the connection and the handshake, each
  u64 idle_ms = 60'000;     // without a byte in either direction
  std::string name_servers;
};

class Connection {
 public:
  // proxy: an http:// or https:// proxy, or nothing. A TLS connection through it is a tunnel
  // (CONNECT). An https:// proxy's certificate is always checked, whatever `tls` says of the
  // server.
  static Fetched<std::unique_ptr<Connection>> open(const Url& to, const std::optional<Url>& proxy,
                                                   const TlsOptions& tls, const Waits& waits,
                                                   const std::atomic<bool>* cancel);
  ~Connection();

  // 0 at the end of the stream.
  Fetched<std::size_t> read(ByteSpan into);
  Fetched<> write(ConstByteSpan bytes);
  // Something has come, or the stream has ended: a read would not wait.
  bool readable() const;

 private:
  Connection(base::UniqueFd fd, const Waits& waits, const std::atomic<bool>* cancel);
  // Over another one: TLS in TLS.
  explicit Connection(std::unique_ptr<Connection> below);
  Fetched<> handshake(const Url& to, const TlsOptions& options);
  Fetched<> tunnel(const Url& to, const Url& proxy);
  Fetched<std::size_t> receive(ByteSpan into);  // from the socket, or from below
  Fetched<> send(ConstByteSpan bytes);          // to it
  Fetched<> flush();
  Fetched<bool> feed();  // false: the socket's stream has ended
  Patience patience() const { return Patience::of(waits_.idle_ms, cancel_); }
  std::unexpected<Failure> gave_up(std::string_view what) const;

  struct Tls;
  std::unique_ptr<Connection> below_;
  base::UniqueFd fd_;  // without below_
  Waits waits_;
  const std::atomic<bool>* cancel_;
  std::unique_ptr<Tls> tls_;
};

}  // namespace smol::fetch

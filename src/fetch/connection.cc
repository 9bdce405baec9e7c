#include "fetch/connection.h"

#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <vector>

#include "fetch/names.h"

namespace smol::fetch {
namespace {

constexpr std::size_t kTlsBuffer = 32 * kKiB;
constexpr std::size_t kLongestTunnelAnswer = 16 * kKiB;
constexpr u64 kOneAddressMs = 10'000;
// Where distributions keep the certificates that they trust.
constexpr const char* kBundles[] = {"/etc/ssl/certs/ca-certificates.crt",
                                    "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem",
                                    "/etc/ssl/cert.pem"};

Fetched<base::UniqueFd> connect_one(const Address& address, const Patience& patience) {
  base::UniqueFd fd(
      ::socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd.valid())
    return std::unexpected(Failure{Problem::kConnect, Error::last_errno("cannot open a socket")});
  const int on = 1;
  ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address.storage), address.size) == 0)
    return fd;
  int status = errno;
  if (status == EINPROGRESS) {
    if (!patience.wait(fd.get(), POLLOUT)) {
      if (patience.cancelled()) return failure(Problem::kCancelled, "interrupted");
      return failure(Problem::kTimeout, "no answer from {}", address.text());
    }
    socklen_t size = sizeof status;
    ::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &status, &size);
    if (status == 0) return fd;
  }
  return std::unexpected(Failure{Problem::kConnect, Error::from_errno(status, address.text())});
}

Fetched<base::UniqueFd> connect_any(const Url& to, const Waits& waits,
                                    const std::atomic<bool>* cancel) {
  auto addresses =
      resolve(to.host, to.port, Patience::of(waits.connect_ms, cancel), waits.name_servers);
  if (!addresses) return std::unexpected(addresses.error());
  Fetched<base::UniqueFd> last = failure(Problem::kConnect, "no address");
  for (const Address& address : *addresses) {
    const u64 patience_ms =
        addresses->size() > 1 ? std::min(waits.connect_ms, kOneAddressMs) : waits.connect_ms;
    auto tried = connect_one(address, Patience::of(patience_ms, cancel));
    if (tried || tried.error().problem == Problem::kCancelled) return tried;
    // The first refusal says more than what comes of a protocol that the host does not have.
    if (last || &address == &addresses->front()) last = std::move(tried);
  }
  return std::unexpected(
      Failure{last.error().problem,
              Error("cannot connect to " + to.authority()).because_of(last.error().error)});
}

struct FreeContext {
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
};

std::string last_tls_error() {
  const unsigned long code = ERR_peek_last_error();
  const char* const reason = ERR_reason_error_string(code);
  ERR_clear_error();
  return reason != nullptr ? reason : "no reason given";
}

Fetched<> load_system_bundle(SSL_CTX* context) {
  if (const char* const given = std::getenv("SSL_CERT_FILE");
      given != nullptr && given[0] != '\0') {
    if (SSL_CTX_load_verify_file(context, given) == 1) return {};
    return failure(Problem::kTls, "cannot read the certificates in {} (SSL_CERT_FILE): {}", given,
                   last_tls_error());
  }
  for (const char* const path : kBundles)
    if (::access(path, R_OK) == 0 && SSL_CTX_load_verify_file(context, path) == 1) break;
  ERR_clear_error();
  return {};  // none: every server is unknown, and its handshake says so
}

Fetched<std::unique_ptr<SSL_CTX, FreeContext>> make_context(const TlsOptions& options) {
  // No openssl.cnf: it may name modules that a static program cannot load.
  static const int initialized = OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG, nullptr);
  std::unique_ptr<SSL_CTX, FreeContext> context(SSL_CTX_new(TLS_client_method()));
  if (initialized != 1 || !context)
    return failure(Problem::kTls, "cannot start TLS: {}", last_tls_error());
  SSL_CTX_set_min_proto_version(context.get(), TLS1_2_VERSION);
  SSL_CTX_set_options(context.get(), SSL_OP_NO_RENEGOTIATION);
  SSL_CTX_set_verify(context.get(), options.verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, nullptr);
  if (!options.verify) return context;
  auto loaded = load_system_bundle(context.get());
  if (!loaded) return std::unexpected(loaded.error());
  if (!options.ca_file.empty() &&
      SSL_CTX_load_verify_file(context.get(), options.ca_file.c_str()) != 1)
    return failure(Problem::kTls, "cannot read certificates from {}: {}", options.ca_file,
                   last_tls_error());
  return context;
}

}  // namespace

struct Connection::Tls {
  ~Tls() {
    if (ssl != nullptr) SSL_free(ssl);
  }
  SSL* ssl = nullptr;
  BIO* in = nullptr;   // what came from the socket; owned by ssl
  BIO* out = nullptr;  // what is to go to the socket; owned by ssl
  bool ended = false;
};

Connection::Connection(base::UniqueFd fd, const Waits& waits, const std::atomic<bool>* cancel)
    : fd_(std::move(fd)), waits_(waits), cancel_(cancel) {}
Connection::Connection(std::unique_ptr<Connection> below)
    : below_(std::move(below)), waits_(below_->waits_), cancel_(below_->cancel_) {}
Connection::~Connection() = default;

std::unexpected<Failure> Connection::gave_up(std::string_view what) const {
  if (cancel_ != nullptr && cancel_->load()) return failure(Problem::kCancelled, "interrupted");
  return failure(Problem::kTimeout, "{} for {} s", what, waits_.idle_ms / 1000);
}

Fetched<std::size_t> Connection::receive(ByteSpan into) {
  if (below_) return below_->read(into);
  const Patience patience = this->patience();
  for (;;) {
    const ssize_t got = ::recv(fd_.get(), into.data(), into.size(), 0);
    if (got >= 0) return static_cast<std::size_t>(got);
    if (errno == EINTR) continue;
    if (errno != EAGAIN)
      return std::unexpected(Failure{Problem::kCut, Error::last_errno("the connection broke")});
    if (!patience.wait(fd_.get(), POLLIN)) return gave_up("nothing came from the server");
  }
}

Fetched<> Connection::send(ConstByteSpan bytes) {
  if (below_) return below_->write(bytes);
  Patience patience = this->patience();
  while (!bytes.empty()) {
    const ssize_t sent = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent > 0) {
      bytes = bytes.subspan(static_cast<std::size_t>(sent));
      patience = this->patience();
      continue;
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN)
      return std::unexpected(Failure{Problem::kCut, Error::last_errno("the connection broke")});
    if (!patience.wait(fd_.get(), POLLOUT)) return gave_up("the server took nothing");
  }
  return {};
}

Fetched<> Connection::flush() {
  u8 buffer[kTlsBuffer];
  while (BIO_ctrl_pending(tls_->out) > 0) {
    const int size = BIO_read(tls_->out, buffer, sizeof buffer);
    if (size <= 0) break;
    if (auto sent = send({buffer, static_cast<std::size_t>(size)}); !sent) return sent;
  }
  return {};
}

Fetched<bool> Connection::feed() {
  if (auto flushed = flush(); !flushed) return std::unexpected(flushed.error());
  u8 buffer[kTlsBuffer];
  auto got = receive(buffer);
  if (!got) return std::unexpected(got.error());
  if (*got == 0) return false;
  BIO_write(tls_->in, buffer, static_cast<int>(*got));
  return true;
}

Fetched<> Connection::handshake(const Url& to, const TlsOptions& options) {
  auto context = make_context(options);
  if (!context) return std::unexpected(context.error());
  tls_ = std::make_unique<Tls>();
  tls_->ssl = SSL_new(context->get());
  tls_->in = BIO_new(BIO_s_mem());
  tls_->out = BIO_new(BIO_s_mem());
  if (tls_->ssl == nullptr || tls_->in == nullptr || tls_->out == nullptr) {
    BIO_free(tls_->in);
    BIO_free(tls_->out);
    return failure(Problem::kTls, "cannot start TLS: {}", last_tls_error());
  }
  SSL_set_bio(tls_->ssl, tls_->in, tls_->out);
  // Without a name to compare, every trusted certificate would do.
  const bool named =
      !to.host.empty() &&
      (is_address(to.host)
           ? X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(tls_->ssl), to.host.c_str()) == 1
           : SSL_set_tlsext_host_name(tls_->ssl, to.host.c_str()) == 1 &&
                 SSL_set1_host(tls_->ssl, to.host.c_str()) == 1);
  if (!named) return failure(Problem::kTls, "'{}' is no name that a certificate has", to.host);
  for (;;) {
    ERR_clear_error();
    const int status = SSL_connect(tls_->ssl);
    if (status == 1) return flush();
    if (SSL_get_error(tls_->ssl, status) == SSL_ERROR_WANT_READ) {
      auto fed = feed();
      if (!fed) return std::unexpected(fed.error());
      if (!*fed) return failure(Problem::kTls, "{} ended the TLS handshake", to.authority());
      continue;
    }
    if (const long verified = SSL_get_verify_result(tls_->ssl);
        options.verify && verified != X509_V_OK)
      return failure(Problem::kTls, "the certificate of {} is not trusted: {}", to.authority(),
                     X509_verify_cert_error_string(verified));
    const int reason = ERR_GET_REASON(ERR_peek_last_error());
    const bool not_tls = reason == SSL_R_WRONG_VERSION_NUMBER || reason == SSL_R_HTTP_REQUEST ||
                         reason == SSL_R_PACKET_LENGTH_TOO_LONG ||
                         reason == SSL_R_RECORD_LENGTH_MISMATCH;
    const std::string text = last_tls_error();
    (void)flush();  // the alert, if it still goes
    return failure(not_tls ? Problem::kNotTls : Problem::kTls, "TLS handshake with {}: {}",
                   to.authority(), text);
  }
}

Fetched<> Connection::tunnel(const Url& to, const Url& proxy) {
  const std::string host = to.host.find(':') == std::string::npos ? to.host : "[" + to.host + "]";
  std::string request = fmt::format("CONNECT {0}:{1} HTTP/1.1\r\nHost: {0}:{1}\r\n", host, to.port);
  if (!proxy.user.empty()) request += "Proxy-Authorization: Basic " + base64(proxy.user) + "\r\n";
  request += "\r\n";
  auto sent = write({reinterpret_cast<const u8*>(request.data()), request.size()});
  if (!sent) return sent;
  std::string answer;
  while (!answer.ends_with("\r\n\r\n")) {  // a byte at a time: what is behind belongs to TLS
    u8 byte;
    auto got = read({&byte, 1});
    if (!got) return std::unexpected(got.error());
    if (*got == 0 || answer.size() > kLongestTunnelAnswer)
      return failure(Problem::kConnect, "the proxy {} does not answer in HTTP", proxy.authority());
    answer += static_cast<char>(byte);
  }
  const std::string status = answer.size() > 12 ? answer.substr(9, 3) : "";
  if (!answer.starts_with("HTTP/1.") || !status.starts_with('2'))
    return failure(Problem::kConnect, "the proxy {} refuses a connection to {}: {}",
                   proxy.authority(), to.authority(), answer.substr(0, answer.find('\r')));
  return {};
}

Fetched<std::unique_ptr<Connection>> Connection::open(const Url& to,
                                                      const std::optional<Url>& proxy,
                                                      const TlsOptions& tls, const Waits& waits,
                                                      const std::atomic<bool>* cancel) {
  auto fd = connect_any(proxy ? *proxy : to, waits, cancel);
  if (!fd) return std::unexpected(fd.error());
  std::unique_ptr<Connection> connection(new Connection(std::move(*fd), waits, cancel));
  if (proxy && proxy->tls) {
    const TlsOptions checked{.ca_file = tls.ca_file, .verify = true};
    if (auto shaken = connection->handshake(*proxy, checked); !shaken)
      return std::unexpected(Failure{
          shaken.error().problem == Problem::kNotTls ? Problem::kTls : shaken.error().problem,
          Error("the proxy " + proxy->origin()).because_of(shaken.error().error)});
  }
  if (!to.tls) return connection;
  if (proxy)
    if (auto tunneled = connection->tunnel(to, *proxy); !tunneled)
      return std::unexpected(tunneled.error());
  if (proxy && proxy->tls) connection.reset(new Connection(std::move(connection)));
  if (auto shaken = connection->handshake(to, tls); !shaken) return std::unexpected(shaken.error());
  return connection;
}

Fetched<std::size_t> Connection::read(ByteSpan into) {
  if (!tls_) return receive(into);
  for (;;) {
    ERR_clear_error();
    const int got = SSL_read(tls_->ssl, into.data(), static_cast<int>(into.size()));
    if (got > 0) return static_cast<std::size_t>(got);
    const int error = SSL_get_error(tls_->ssl, got);
    if (error == SSL_ERROR_ZERO_RETURN) return 0;
    if (error != SSL_ERROR_WANT_READ)
      return failure(Problem::kCut, "the TLS connection broke: {}", last_tls_error());
    auto fed = feed();
    if (!fed) return std::unexpected(fed.error());
    // Without TLS's own good-bye, the end may have been made by anybody.
    if (!*fed) return failure(Problem::kCut, "the connection ended in the middle");
  }
}

Fetched<> Connection::write(ConstByteSpan bytes) {
  if (!tls_) return send(bytes);
  while (!bytes.empty()) {
    const int size = static_cast<int>(std::min<std::size_t>(bytes.size(), kTlsBuffer));
    ERR_clear_error();
    const int put = SSL_write(tls_->ssl, bytes.data(), size);
    if (put > 0) {
      bytes = bytes.subspan(static_cast<std::size_t>(put));
      if (auto flushed = flush(); !flushed) return flushed;
      continue;
    }
    if (SSL_get_error(tls_->ssl, put) != SSL_ERROR_WANT_READ)
      return failure(Problem::kCut, "the TLS connection broke: {}", last_tls_error());
    auto fed = feed();
    if (!fed) return std::unexpected(fed.error());
    if (!*fed) return failure(Problem::kCut, "the connection ended in the middle");
  }
  return {};
}

bool Connection::readable() const {
  if (tls_ && (SSL_pending(tls_->ssl) > 0 || BIO_ctrl_pending(tls_->in) > 0)) return true;
  if (below_) return below_->readable();
  pollfd polled{fd_.get(), POLLIN, 0};
  return ::poll(&polled, 1, 0) > 0;
}

}  // namespace smol::fetch

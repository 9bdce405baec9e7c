#include "client/monitor_client.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>

#include "api/json.h"
#include "base/fd.h"
#include "base/time.h"
#include "client/http_reply.h"

namespace smol::client {
namespace {

class Deadline {
 public:
  explicit Deadline(int timeout_ms) : end_(now() + timeout_ms) {}
  // Milliseconds that are left, at least 0.
  int left() const { return static_cast<int>(std::max<i64>(end_ - now(), 0)); }

 private:
  static i64 now() { return static_cast<i64>(base::monotonic_ns() / 1'000'000); }
  i64 end_;
};

std::unexpected<ClientError> broken(const std::string& path, std::string what,
                                    bool not_running = false) {
  return std::unexpected(ClientError{
      .status = 0,
      .not_running = not_running,
      .chain = {fmt::format("cannot talk to the monitor at {}", path), std::move(what)}});
}

Reply<base::UniqueFd> open_socket(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path))
    return broken(path,
                  fmt::format("a socket's path has 1 to {} bytes", sizeof(address.sun_path) - 1));
  std::memcpy(address.sun_path, path.data(), path.size());
  base::UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return broken(path, Error::last_errno("cannot make a socket").message());
  // The socket still blocks here: a full backlog waits for its turn instead of failing. A Unix
  // socket's peer accepts or is gone.
  while (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    if (errno == EINTR) continue;
    return broken(path, std::strerror(errno), errno == ENOENT || errno == ECONNREFUSED);
  }
  return fd;
}

Reply<> wait_for(int fd, short events, const Deadline& deadline, const std::string& path) {
  for (;;) {
    pollfd entry{.fd = fd, .events = events, .revents = 0};
    const int ready = ::poll(&entry, 1, deadline.left());
    if (ready > 0) return {};
    if (ready == 0) return broken(path, "it did not answer in time");
    if (errno != EINTR) return broken(path, std::strerror(errno));
  }
}

Reply<> send_all(int fd, std::string_view bytes, const Deadline& deadline,
                 const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t put = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (put >= 0) {
      bytes.remove_prefix(static_cast<std::size_t>(put));
    } else if (errno == EAGAIN) {
      TRY(wait_for(fd, POLLOUT, deadline, path));
    } else if (errno == EPIPE || errno == ECONNRESET) {
      return {};  // an answer may be there all the same: refused early
    } else if (errno != EINTR) {
      return broken(path, std::strerror(errno));
    }
  }
  return {};
}

Reply<HttpReply> receive(int fd, const Deadline& deadline, const std::string& path) {
  std::string received;
  char buffer[16 * 1024];
  for (;;) {
    TRY(wait_for(fd, POLLIN, deadline, path));
    const ssize_t got = ::recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT);
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (got < 0) return broken(path, std::strerror(errno));
    if (got == 0) return broken(path, "it closed the connection without an answer");
    received.append(buffer, static_cast<std::size_t>(got));
    auto reply = parse_reply(received);
    if (!reply) return broken(path, reply.error().chain());
    if (reply->has_value()) return std::move(**reply);
  }
}

template <class T>
Reply<T> read_answer(const Reply<std::string>& body, Result<T> (*parse)(std::string_view)) {
  if (!body) return std::unexpected(body.error());
  auto parsed = parse(*body);
  if (!parsed)
    return std::unexpected(
        ClientError{.status = 0, .not_running = false, .chain = {parsed.error().chain()}});
  return std::move(*parsed);
}

}  // namespace

std::string ClientError::text() const {
  return api::ApiError{api::ErrorKind::kInternal, chain}.text();
}

Error ClientError::error() const {
  Error error(chain.empty() ? "unknown error" : chain.back());
  for (std::size_t i = chain.size(); i-- > 1;)
    error = Error(chain[i - 1]).because_of(std::move(error));
  return error;
}

Reply<MonitorClient> MonitorClient::connect(std::string path, int timeout_ms) {
  auto socket = open_socket(path);
  if (!socket) return std::unexpected(socket.error());
  return MonitorClient(std::move(path), timeout_ms);
}

Reply<std::string> MonitorClient::request(std::string_view method, std::string_view path,
                                          std::string_view body) const {
  const Deadline deadline(timeout_ms_);
  TRY_ASSIGN(const base::UniqueFd socket, open_socket(path_));
  std::string text = fmt::format(
      "{} /api/v1/{} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n", method, path);
  if (method == "PUT") text += fmt::format("Content-Length: {}\r\n", body.size());
  if (!body.empty()) text += "Content-Type: application/json\r\n";
  text += "\r\n";
  text += body;
  TRY(send_all(socket.get(), text, deadline, path_));
  TRY_ASSIGN(HttpReply reply, receive(socket.get(), deadline, path_));
  if (reply.status == 200 || reply.status == 204) return std::move(reply.body);
  return std::unexpected(ClientError{.status = static_cast<u16>(reply.status),
                                     .not_running = false,
                                     .chain = api::parse_error_chain(reply.body)});
}

Reply<std::string> MonitorClient::get(std::string_view path) const {
  return request("GET", path, {});
}
Reply<std::string> MonitorClient::put(std::string_view path, std::string_view json_body) const {
  return request("PUT", path, json_body);
}

Reply<> MonitorClient::put_plain(std::string_view path, std::string_view body) const {
  TRY(put(path, body));
  return {};
}

Reply<api::Ping> MonitorClient::ping() const {
  return read_answer(get("vmm.ping"), api::parse_ping);
}
Reply<api::VmInfo> MonitorClient::info() const {
  return read_answer(get("vm.info"), api::parse_vm_info);
}
Reply<api::Counters> MonitorClient::counters() const {
  return read_answer(get("vm.counters"), api::parse_counters);
}
Reply<> MonitorClient::create(const api::VmConfig& config) const {
  return put_plain("vm.create", api::to_json(config));
}
Reply<> MonitorClient::boot() const { return put_plain("vm.boot"); }
Reply<> MonitorClient::pause() const { return put_plain("vm.pause"); }
Reply<> MonitorClient::resume() const { return put_plain("vm.resume"); }
Reply<> MonitorClient::reboot() const { return put_plain("vm.reboot"); }
Reply<> MonitorClient::power_button() const { return put_plain("vm.power-button"); }
Reply<> MonitorClient::shutdown_vm() const { return put_plain("vm.shutdown"); }
Reply<> MonitorClient::shutdown_vmm() const { return put_plain("vmm.shutdown"); }

Reply<> MonitorClient::resize_balloon(u64 bytes) const {
  return put_plain("vm.resize",
                   api::to_json(api::VmResize{
                       .desired_vcpus = {}, .desired_ram = {}, .desired_balloon = bytes}));
}
Reply<> MonitorClient::resize_disk(std::string_view id, u64 bytes) const {
  return put_plain("vm.resize-disk", api::to_json(api::VmResizeDisk{std::string(id), bytes}));
}
Reply<> MonitorClient::add_share(const api::ShareConfig& share) const {
  return put_plain("vm.add-share", api::to_json(share));
}
Reply<> MonitorClient::remove_device(std::string_view id) const {
  return put_plain("vm.remove-device", api::to_json(api::VmRemoveDevice{std::string(id)}));
}

}  // namespace smol::client

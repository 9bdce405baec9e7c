// A client of a monitor's API socket: blocking, one request at a time, each with a time limit.
//
// Every request opens a connection of its own, so a client may be kept as long as one likes, and a
// monitor that went away is told by the next request. One thread at a time.
#pragma once

#include <string>
#include <string_view>

#include "api/answer.h"
#include "api/error.h"

namespace smol::client {

// status: of HTTP (api/error.h); 0: there was no answer (nobody listens: not_running; a time-out, a
// broken connection).
struct ClientError {
  u16 status = 0;
  bool not_running = false;        // no socket, or nobody behind it
  std::vector<std::string> chain;  // outermost first
  std::string text() const;        // "outer: middle: inner"
  Error error() const;             // for TRY
};

template <class T = void>
using Reply = std::expected<T, ClientError>;

class MonitorClient {
 public:
  static constexpr int kDefaultTimeoutMs = 30'000;

  // Sees whether somebody listens at the Unix socket `path`; timeout_ms is for each later request,
  // from its start to its end.
  static Reply<MonitorClient> connect(std::string path, int timeout_ms = kDefaultTimeoutMs);

  // path: "vm.info", without the prefix. The body of the answer, "" for 204.
  Reply<std::string> get(std::string_view path) const;
  Reply<std::string> put(std::string_view path, std::string_view json_body = {}) const;

  Reply<api::Ping> ping() const;
  Reply<api::VmInfo> info() const;
  Reply<api::Counters> counters() const;
  Reply<> create(const api::VmConfig& config) const;
  Reply<> boot() const;
  Reply<> pause() const;
  Reply<> resume() const;
  Reply<> reboot() const;
  Reply<> power_button() const;
  Reply<> shutdown_vm() const;
  Reply<> shutdown_vmm() const;  // the monitor ends
  Reply<> resize_balloon(u64 bytes) const;
  Reply<> resize_disk(std::string_view id, u64 bytes) const;
  Reply<> add_share(const api::ShareConfig& share) const;
  Reply<> remove_device(std::string_view id) const;  // also a share, by its tag

 private:
  MonitorClient(std::string path, int timeout_ms)
      : path_(std::move(path)), timeout_ms_(timeout_ms) {}
  Reply<std::string> request(std::string_view method, std::string_view path,
                             std::string_view body) const;
  Reply<> put_plain(std::string_view path, std::string_view body = {}) const;

  std::string path_;
  int timeout_ms_;
};

}  // namespace smol::client

#include "instance.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "base/unix_socket.h"

namespace capsule {
namespace {

constexpr std::size_t kSocketLimit = 96;  // 107 bytes, less what the boot connection's name adds

// A folder of ours alone, made when it is missing; "" when that cannot be.
std::string private_folder(const char* variable, const char* below) {
  const char* const base = std::getenv(variable);
  if (base == nullptr || base[0] != '/') return "";
  std::string path = base;
  for (const char* at = below; at != nullptr && *at != 0;) {
    const char* const end = std::strchr(at, '/');
    path += "/" + (end != nullptr ? std::string(at, end) : std::string(at));
    ::mkdir(path.c_str(), 0700);
    at = end != nullptr ? end + 1 : nullptr;
  }
  struct stat status{};
  const bool ours = ::lstat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode) &&
                    status.st_uid == ::geteuid() && (status.st_mode & 077) == 0 &&
                    ::access(path.c_str(), W_OK) == 0;
  return ours ? path : "";
}

}  // namespace

Instance find_instance(const std::string& name) {
  std::string folder = private_folder("XDG_RUNTIME_DIR", "smol-capsule");
  if (folder.empty()) folder = private_folder("HOME", ".local/state/smol-capsule");
  if (folder.empty() || folder.size() + name.size() + 6 > kSocketLimit)
    return {.name = name,
            .socket = fmt::format("@smol-capsule-{}-{}", ::geteuid(), name),
            .log = "",
            .ports = ""};
  const std::string stem = folder + "/" + name;
  return {.name = name, .socket = stem + ".sock", .log = stem + ".log", .ports = stem + ".ports"};
}

Result<std::optional<Running>> find_running(const Instance& instance) {
  const auto connection = base::connect_unix(instance.socket);
  if (!connection) return std::nullopt;
  ucred peer{};
  socklen_t size = sizeof(peer);
  if (::getsockopt(connection->get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0)
    return fail_errno("cannot tell who listens at {}", instance.socket);
  if (peer.uid != ::geteuid() && ::geteuid() != 0 && peer.uid != 0)
    return fail("the socket {} belongs to another user", instance.socket);
  Running running{.pid = peer.pid, .pidfd = {}};
  running.pidfd.reset(static_cast<int>(::syscall(SYS_pidfd_open, peer.pid, 0)));
  if (!running.pidfd.valid()) return fail_errno("cannot watch process {}", peer.pid);
  return std::optional(std::move(running));
}

Result<Running> need_running(const Instance& instance) {
  TRY_ASSIGN(auto running, find_running(instance));
  if (!running) return fail("'{}' is not running", instance.name);
  return std::move(*running);
}

}  // namespace capsule

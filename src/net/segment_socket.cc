#include "net/segment_socket.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>

#include "base/log.h"

namespace smol::net {
namespace {

constexpr std::string_view kSuffix = ".sock";
constexpr int kBacklog = 4096;
// Asked for; the kernel gives what it allows.
constexpr int kSendBuffer = 4 * 1024 * 1024;

std::string file_name(const MacAddress& mac) {
  return fmt::format("{:02x}{:02x}{:02x}{:02x}{:02x}{:02x}{}", mac[0], mac[1], mac[2], mac[3],
                     mac[4], mac[5], kSuffix);
}

bool parse_file_name(std::string_view name, MacAddress& mac) {
  if (name.size() != 12 + kSuffix.size() || !name.ends_with(kSuffix)) return false;
  for (std::size_t i = 0; i < 6; ++i)
    if (std::from_chars(name.data() + 2 * i, name.data() + 2 * i + 2, mac[i], 16).ptr !=
        name.data() + 2 * i + 2)
      return false;
  return true;
}

Result<sockaddr_un> address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path))
    return fail("the path {} is too long for a socket ({} bytes, {} fit): use a shorter directory",
                path, path.size(), sizeof(address.sun_path) - 1);
  path.copy(address.sun_path, path.size());
  return address;
}

base::UniqueFd open_socket() {
  return base::UniqueFd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
}

// Held while sockets are bound and dead ones cleared away, so that nobody clears away what another
// just bound.
class DirectoryLock {
 public:
  explicit DirectoryLock(const std::string& directory)
      : fd_(::open((directory + "/.lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW,
                   0600)) {
    while (fd_.valid() && ::flock(fd_.get(), LOCK_EX) != 0 && errno == EINTR) {
    }
  }
  bool held() const { return fd_.valid(); }

 private:
  base::UniqueFd fd_;
};

Result<> make_directory(const std::string& directory) {
  if (::mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST)
    return fail_errno("cannot make the segment's directory {}", directory);
  struct stat status{};
  if (::stat(directory.c_str(), &status) != 0)
    return fail_errno("cannot look at the segment's directory {}", directory);
  if (!S_ISDIR(status.st_mode)) return fail("the segment {} is not a directory", directory);
  if (status.st_uid != ::geteuid() || (status.st_mode & 022) != 0)
    return fail("the segment's directory {} must be yours, and writable for nobody else",
                directory);
  return {};
}

bool is_mine(int fd) {
  ucred peer{};
  socklen_t size = sizeof(peer);
  return ::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == ::geteuid();
}

}  // namespace

bool SegmentHello::sound() const {
  if (magic != kMagic || (mac[0] & 1) != 0 || name[sizeof(name) - 1] != 0) return false;
  return name[0] == 0 || check_member_name(name).has_value();
}

Result<std::string> check_member_name(const std::string& name) {
  std::string lower = name;
  for (char& c : lower)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  const bool good =
      !lower.empty() && lower.size() <= 63 && lower.front() != '-' && lower.back() != '-' &&
      std::all_of(lower.begin(), lower.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
      });
  if (!good)
    return fail(
        "'{}' cannot be a machine's name on a segment: 1 to 63 letters, digits, '-' and '_'", name);
  return lower;
}

Result<std::unique_ptr<SegmentPlace>> SegmentPlace::take(const std::string& directory,
                                                         const MacAddress& mac) {
  TRY(make_directory(directory));
  auto place = std::unique_ptr<SegmentPlace>(new SegmentPlace(directory, mac));
  const std::string path = fmt::format("{}/{}", directory, file_name(mac));
  TRY_ASSIGN(const sockaddr_un address, address_of(path));
  const DirectoryLock lock(directory);
  if (!lock.held()) return fail_errno("cannot lock the segment's directory {}", directory);
  base::UniqueFd probe = open_socket();
  if (!probe.valid()) return fail_errno("cannot open a Unix socket");
  const auto* const generic = reinterpret_cast<const sockaddr*>(&address);
  if (::connect(probe.get(), generic, sizeof(address)) == 0 || errno == EAGAIN)
    return fail("the segment {} has a running machine with this MAC address ({})", directory, path);
  if (errno == ECONNREFUSED) ::unlink(path.c_str());
  base::UniqueFd listener = open_socket();
  if (!listener.valid() || ::bind(listener.get(), generic, sizeof(address)) != 0)
    return fail_errno("cannot make the socket {}", path);
  place->listener_ = std::move(listener);
  if (::listen(place->listener_.get(), kBacklog) != 0)
    return fail_errno("cannot listen at {}", path);
  return place;
}

SegmentPlace::~SegmentPlace() {
  if (!listener_.valid()) return;
  const DirectoryLock lock(directory_);
  ::unlink(fmt::format("{}/{}", directory_, file_name(mac_)).c_str());
}

std::vector<MacAddress> SegmentPlace::others() const {
  std::vector<MacAddress> found;
  DIR* const directory = ::opendir(directory_.c_str());
  if (directory == nullptr) {
    base::log_warn("cannot list the segment {}: {}", directory_, std::strerror(errno));
    return found;
  }
  while (const dirent* const entry = ::readdir(directory))
    if (MacAddress mac; parse_file_name(entry->d_name, mac) && mac != mac_) found.push_back(mac);
  ::closedir(directory);
  return found;
}

base::UniqueFd SegmentPlace::connect(const MacAddress& mac) const {
  const std::string path = fmt::format("{}/{}", directory_, file_name(mac));
  const auto address = address_of(path);
  base::UniqueFd fd = open_socket();
  if (!address || !fd.valid()) return {};
  const auto* const generic = reinterpret_cast<const sockaddr*>(&*address);
  if (::connect(fd.get(), generic, sizeof(*address)) == 0) {
    if (!is_mine(fd.get())) return {};
    if (::setsockopt(fd.get(), SOL_SOCKET, SO_SNDBUFFORCE, &kSendBuffer, sizeof(kSendBuffer)) != 0)
      ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDBUF, &kSendBuffer, sizeof(kSendBuffer));
    return fd;
  }
  if (errno != ECONNREFUSED) return {};
  // Nobody listens: look again under the lock, under which places are taken.
  const DirectoryLock lock(directory_);
  if (lock.held() && ::connect(fd.get(), generic, sizeof(*address)) != 0 && errno == ECONNREFUSED)
    ::unlink(path.c_str());
  return {};
}

base::UniqueFd SegmentPlace::accept() const {
  while (true) {
    base::UniqueFd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!fd.valid() && (errno == EINTR || errno == ECONNABORTED)) continue;
    if (!fd.valid() || is_mine(fd.get())) return fd;
  }
}

}  // namespace smol::net

#include "net/tap_setup.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cerrno>

#include "base/log.h"

namespace smol::net {
namespace {

constexpr int kHeaderSize = sizeof(OffloadHeader);

Result<ifreq> request_for(const std::string& name) {
  if (name.size() >= IFNAMSIZ || name.find('/') != std::string::npos || name == "." || name == "..")
    return fail("'{}' cannot be a network device's name (up to {} characters, no '/')", name,
                IFNAMSIZ - 1);
  ifreq request{};
  name.copy(request.ifr_name, IFNAMSIZ - 1);
  return request;
}

// A socket for the ioctls that set up interfaces.
Result<base::UniqueFd> control_socket() {
  base::UniqueFd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return fail_errno("cannot open a socket to set up network devices");
  return fd;
}

// One more queue of the device that the request names; its name comes back in the request.
Result<base::UniqueFd> open_queue(ifreq& request, int flags) {
  auto fd = base::open_file("/dev/net/tun", O_RDWR | O_NONBLOCK);
  if (!fd) return wrap(fd.error(), "this host has no TAP devices for us");
  request.ifr_flags = static_cast<short>(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | flags);
  if (::ioctl(fd->get(), TUNSETIFF, &request) == 0) return std::move(*fd);
  const int number = errno;
  const char* const hint = number == EPERM    ? " (it needs CAP_NET_ADMIN, or a device that is "
                                                "yours: ip tuntap add NAME mode tap user USER)"
                           : number == EBUSY  ? " (another process has it open)"
                           : number == EINVAL ? " (it exists and is not a TAP)"
                                              : "";
  return std::unexpected(Error::from_errno(
      number, fmt::format("cannot attach to the TAP device '{}'{}", request.ifr_name, hint)));
}

Result<OpenTap> open_by_name(const std::string& name, u16 queues) {
  TRY_ASSIGN(ifreq request, request_for(name.empty() ? "smoltap%d" : name));
  const int first_choice = queues > 1 ? IFF_MULTI_QUEUE : 0;
  auto fd = open_queue(request, first_choice);
  bool several = queues > 1;
  if (!fd && fd.error().error_number() == EINVAL) {  // it exists and was made the other way
    fd = open_queue(request, first_choice ^ IFF_MULTI_QUEUE);
    if (fd && several) base::log_info("the TAP device {} has one queue alone", request.ifr_name);
    several = false;
  }
  if (!fd) return std::unexpected(fd.error());
  OpenTap tap{.fds = {}, .name = request.ifr_name};
  tap.fds.push_back(std::move(*fd));
  while (several && tap.fds.size() < queues) {
    TRY_ASSIGN(auto another, open_queue(request, IFF_MULTI_QUEUE));
    tap.fds.push_back(std::move(another));
  }
  return tap;
}

Result<OpenTap> open_by_fd(const std::vector<int>& numbers) {
  OpenTap tap;
  for (const int number : numbers) {
    base::UniqueFd fd(::fcntl(number, F_DUPFD_CLOEXEC, 3));
    if (!fd.valid()) return fail_errno("descriptor {} cannot be used as a TAP", number);
    ifreq request{};
    if (::ioctl(fd.get(), TUNGETIFF, &request) != 0)
      return fail_errno("descriptor {} is not a TAP", number);
    constexpr int kNeeded = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    if ((request.ifr_flags & kNeeded) != kNeeded)
      return fail("descriptor {} ({}) was not opened as IFF_TAP | IFF_NO_PI | IFF_VNET_HDR", number,
                  request.ifr_name);
    if (!tap.fds.empty() && tap.name != request.ifr_name)
      return fail("descriptor {} ({}) is not a queue of {}", number, request.ifr_name, tap.name);
    if (::fcntl(fd.get(), F_SETFL, O_NONBLOCK) != 0)
      return fail_errno("cannot make descriptor {} non-blocking", number);
    tap.name = request.ifr_name;
    tap.fds.push_back(std::move(fd));
  }
  return tap;
}

Result<> set_address(int control, const std::string& name, unsigned long what,
                     const std::string& text) {
  TRY_ASSIGN(ifreq request, request_for(name));
  auto& address = reinterpret_cast<sockaddr_in&>(request.ifr_addr);
  address.sin_family = AF_INET;
  if (::inet_pton(AF_INET, text.c_str(), &address.sin_addr) != 1)
    return fail("'{}' is not an IPv4 address", text);
  if (::ioctl(control, what, &request) != 0)
    return fail_errno("cannot give {} the {} {}", name, what == SIOCSIFADDR ? "address" : "mask",
                      text);
  return {};
}

Result<> join_bridge(int control, const std::string& name, const std::string& bridge) {
  TRY_ASSIGN(ifreq request, request_for(bridge));
  request.ifr_ifindex = static_cast<int>(::if_nametoindex(name.c_str()));
  if (::if_nametoindex(bridge.c_str()) == 0)
    return fail("there is no network device '{}' to be the bridge of {}", bridge, name);
  if (::ioctl(control, SIOCBRADDIF, &request) == 0) return {};
  const int number = errno;
  const char* const hint = number == EOPNOTSUPP ? " (it is not a bridge)"
                           : number == EBUSY    ? " (it is in a bridge already)"
                                                : "";
  return std::unexpected(Error::from_errno(
      number, fmt::format("cannot add {} to the bridge {}{}", name, bridge, hint)));
}

Result<> bring_up(int control, const std::string& name) {
  TRY_ASSIGN(ifreq request, request_for(name));
  if (::ioctl(control, SIOCGIFFLAGS, &request) != 0) return fail_errno("cannot look at {}", name);
  if ((request.ifr_flags & IFF_UP) != 0) return {};
  request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP);
  if (::ioctl(control, SIOCSIFFLAGS, &request) != 0)
    return fail_errno("cannot bring {} up (ip link set {} up)", name, name);
  return {};
}

Result<u32> set_mtu(int control, const std::string& name, u32 mtu) {
  TRY_ASSIGN(ifreq request, request_for(name));
  if (::ioctl(control, SIOCGIFMTU, &request) != 0)
    return fail_errno("cannot read the MTU of {}", name);
  if (mtu == 0 || request.ifr_mtu == static_cast<int>(mtu))
    return static_cast<u32>(request.ifr_mtu);
  request.ifr_mtu = static_cast<int>(mtu);
  if (::ioctl(control, SIOCSIFMTU, &request) != 0)
    return fail_errno("cannot give {} an MTU of {}", name, mtu);
  return mtu;
}

}  // namespace

Result<OpenTap> set_up_tap(const TapOptions& options) {
  TRY_ASSIGN(OpenTap tap, options.fds.empty() ? open_by_name(options.name, options.queues)
                                              : open_by_fd(options.fds));
  const int size = kHeaderSize;
  if (::ioctl(tap.fds[0].get(), TUNSETVNETHDRSZ, &size) != 0)
    return fail_errno("cannot set the offload header of {}", tap.name);
  // The guest begins with one pair. From the last: the kernel moves its last queue into the gap.
  for (std::size_t i = tap.fds.size(); i-- > 1;) TRY(set_queue_attached(tap.fds[i].get(), false));
  // A descriptor may come from another network namespace, where its device has no name of ours: it
  // is taken as it is.
  if (!options.fds.empty()) return tap;
  TRY_ASSIGN(const base::UniqueFd control, control_socket());
  TRY_ASSIGN(tap.mtu, set_mtu(control.get(), tap.name, options.mtu));
  if (!options.ip.empty()) TRY(set_address(control.get(), tap.name, SIOCSIFADDR, options.ip));
  if (!options.mask.empty())
    TRY(set_address(control.get(), tap.name, SIOCSIFNETMASK, options.mask));
  if (!options.bridge.empty()) TRY(join_bridge(control.get(), tap.name, options.bridge));
  TRY(bring_up(control.get(), tap.name));
  return tap;
}

Result<> set_queue_attached(int fd, bool attached) {
  ifreq request{};
  // As it is already: one that came from outside may have been left so.
  if (::ioctl(fd, TUNGETIFF, &request) == 0 &&
      ((request.ifr_flags & IFF_DETACH_QUEUE) == 0) == attached)
    return {};
  request.ifr_flags = static_cast<short>(attached ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE);
  if (::ioctl(fd, TUNSETQUEUE, &request) != 0)
    return fail_errno("cannot {} a queue of a TAP", attached ? "attach" : "detach");
  return {};
}

Result<> set_tap_offloads(int fd, const GuestOffloads& offloads) {
  unsigned flags = 0;
  if (offloads.checksum) {
    flags |= TUN_F_CSUM;
    if (offloads.tso4) flags |= TUN_F_TSO4;
    if (offloads.tso6) flags |= TUN_F_TSO6;
    if (offloads.ecn && (offloads.tso4 || offloads.tso6)) flags |= TUN_F_TSO_ECN;
  }
  if (::ioctl(fd, TUNSETOFFLOAD, flags) != 0)
    return fail_errno("cannot set the offloads of a TAP to {:#x}", flags);
  return {};
}

}  // namespace smol::net

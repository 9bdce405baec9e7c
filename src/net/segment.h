// A segment: one Ethernet for the machines of one user, without privilege and without a daemon.
//
// The members meet in a directory. Each has a SOCK_SEQPACKET socket there, named by its MAC
// address, and each is connected to each: what A sends goes over the connection that A made to B,
// one frame a message behind its 10-byte offload header, so that segments of 64 KiB pass as they
// are. The first message of a connection says who its maker is: MAC, name, address. A member that
// ends closes its connections, which is how the others learn of it; a socket that it left behind is
// cleared away by the next who finds it dead.
//
// A unicast frame goes to the member whose MAC it is (or behind whom it was seen), other frames to
// all. A member that does not read is waited for a moment and then loses frames, as at any switch,
// so that it holds nobody up. The segment's own address, 10.88.0.1, is answered by each member's
// back end for its guest: DNS for the members' names, DHCP, ARP, echo.
//
// Trust: all members are one user's (checked), but a frame is the work of some guest and believed
// in nothing.
#pragma once

#include <memory>
#include <string>

#include "base/event_loop.h"
#include "net/backend.h"
#include "net/peer_names.h"
#include "net/segment_services.h"

namespace smol::net {

struct SegmentOptions {
  std::string directory;  // made (0700) when there is none
  MacAddress mac{};
  std::string name{};  // for DNS: letters, digits and '-', at most 63; empty: none
  u32 ip = 0;          // host order, in 10.88.0.0/16; 0: none
  u16 mtu = 0;         // 0: not told
  // Where the members' names are written, too: shared with the machine's other back ends, which end
  // in any order. Empty: this segment's own server is the only one that knows them.
  std::shared_ptr<PeerNames> names{};
};

// Takes the member's place in the directory at once; connects when the device is activated. An
// address that a running member has is an error. loop outlives the back end.
Result<std::unique_ptr<Backend>> open_segment(base::EventLoop& loop, const SegmentOptions& options);

}  // namespace smol::net

// The directory of a segment: places in it, and connections between them.
#pragma once

#include <sys/un.h>

#include <string>
#include <vector>

#include "base/fd.h"
#include "net/segment.h"

namespace smol::net {

// First message of a connection.
struct SegmentHello {
  static constexpr u64 kMagic = 0x31474553'4c4f4d53;  // "SMOLSEG1"
  u64 magic = kMagic;
  u32 ip = 0;
  MacAddress mac{};
  char name[64] = {};  // ends with a zero
  u16 reserved = 0;
  u32 reserved2 = 0;

  // Strangers' bytes: right magic, a unicast MAC, a name of allowed characters.
  bool sound() const;
};
static_assert(sizeof(SegmentHello) == 88);

// Lower case; an error says what a name may be made of.
Result<std::string> check_member_name(const std::string& name);

// One member's listening socket; the file goes with it.
class SegmentPlace {
 public:
  static Result<std::unique_ptr<SegmentPlace>> take(const std::string& directory,
                                                    const MacAddress& mac);
  ~SegmentPlace();
  SegmentPlace(const SegmentPlace&) = delete;
  SegmentPlace& operator=(const SegmentPlace&) = delete;

  int fd() const { return listener_.get(); }
  // MACs of the sockets that others have there.
  std::vector<MacAddress> others() const;
  // A non-blocking connection to a member; one that is dead is cleared away. Not valid: it is not
  // there.
  base::UniqueFd connect(const MacAddress& mac) const;
  // The next connection of another member of this user; not valid: none waits.
  base::UniqueFd accept() const;

 private:
  SegmentPlace(std::string directory, const MacAddress& mac)
      : directory_(std::move(directory)), mac_(mac) {}
  std::string directory_;
  MacAddress mac_;
  base::UniqueFd listener_;
};

}  // namespace smol::net

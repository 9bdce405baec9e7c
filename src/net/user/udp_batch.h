// Room for the datagrams of one recvmmsg. Private to UdpTable.
#pragma once

#include <sys/socket.h>

#include "net/user/udp.h"

namespace smol::net::user {

struct UdpTable::Batch {
  static constexpr std::size_t kSlot = 65536;
  Batch();
  void clear() {
    source = nullptr;
    at = count = 0;
  }

  base::Mapping memory;  // kBatch slots; only what is used becomes resident
  std::array<mmsghdr, kBatch> messages{};
  std::array<iovec, kBatch> buffers{};
  std::array<sockaddr_storage, kBatch> peers{};
  UdpSource* source = nullptr;  // whose datagrams at .. count are
  u32 at = 0, count = 0;
};

}  // namespace smol::net::user

// UDP: one connected socket for each pair of ends, so that the host's kernel filters what comes
// back and tells ICMP errors; datagrams to published ports share the port's socket.
//
// From the host, datagrams are read up to kBatch at a time and copied into the guest's buffers
// (they are small, and the guest's buffers are taken one at a time). To the host, each goes out
// from the guest's memory with one sendmsg.
#pragma once

#include <sys/socket.h>

#include <unordered_map>

#include "net/user/context.h"
#include "net/user/tcp.h"

struct sock_extended_err;

namespace smol::net::user {

class UdpTable;

// A descriptor that datagrams for the guest come from.
struct UdpSource : Watcher, Hook<BlockedTag> {
  UdpSource(UdpTable& table, base::UniqueFd socket) : table(table), socket(std::move(socket)) {}
  void on_events(u32 events) override;
  UdpTable& table;
  base::UniqueFd socket;
  bool is_port = false;
};

// A published port: datagrams of any peer.
struct UdpPort final : UdpSource {
  UdpPort(UdpTable& table, base::UniqueFd socket, const Endpoint& guest)
      : UdpSource(table, std::move(socket)), guest(guest) {
    is_port = true;
  }
  const Endpoint guest;
};

struct UdpFlow final : UdpSource, Hook<RecentTag> {
  using UdpSource::UdpSource;
  TcpEndpoints ends;
  UdpPort* port = nullptr;  // set: replies go out there, to peer
  Endpoint peer;
  bool answered = false;
  bool may_fragment = true;  // what the socket does with datagrams too big for the way
  u64 last_used = 0;
};

class UdpTable {
 public:
  static constexpr u64 kIdleMs = 180'000;
  static constexpr u64 kUnansweredMs = 60'000;
  static constexpr u32 kBatch = 16;

  UdpTable(Context& context, u32 max_flows);
  ~UdpTable();

  Result<> publish(base::UniqueFd socket, const Endpoint& guest);
  void on_packet(const Packet& packet);
  void room_again();
  void expire();
  std::size_t size() const { return flows_.size(); }
  void forget_all();

  void events(UdpSource& source, u32 events);

 private:
  struct Batch;
  UdpFlow* open(const Packet& packet, const TcpEndpoints& ends);
  UdpFlow* add(const TcpEndpoints& ends, base::UniqueFd socket);
  Result<base::UniqueFd> connect_to(const Endpoint& target);
  void send(UdpFlow& flow, const Packet& packet, u32 size);
  void send_failed(UdpFlow& flow, const Packet& packet, int error);
  // Reads and delivers until nothing is left, or the guest has no room.
  void pull(UdpSource& source);
  bool deliver_batch();
  bool deliver(const Endpoint& from, UdpSource& source, ConstByteSpan payload);
  UdpFlow* flow_of_peer(UdpPort& port, const Endpoint& peer);
  void read_errors(UdpSource& source);
  void tell_error(UdpFlow& flow, const sock_extended_err& detail, ConstByteSpan payload);
  void remove(UdpFlow& flow);

  Context& context_;
  const u32 max_flows_;
  std::unordered_map<TcpEndpoints, std::unique_ptr<UdpFlow>, TcpEndpointsHash> flows_;
  std::vector<std::unique_ptr<UdpPort>> ports_;
  List<UdpFlow, RecentTag> recent_;
  List<UdpSource, BlockedTag> blocked_;
  std::unique_ptr<Batch> batch_;
};

}  // namespace smol::net::user

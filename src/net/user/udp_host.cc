// UDP from the host: datagrams in batches, and ICMP errors from the sockets' error queues
// (ip(7), IP_RECVERR). See udp.h.
#include <time.h>
// After time.h, which it needs.
#include <linux/errqueue.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/mman.h>

#include <cerrno>

#include "base/check.h"
#include "net/user/icmp_error.h"
#include "net/user/udp.h"
#include "net/user/udp_batch.h"

namespace smol::net::user {

UdpTable::Batch::Batch() {
  auto mapped = base::Mapping::map(kBatch * kSlot, PROT_READ | PROT_WRITE,
                                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0, "datagrams");
  CHECK(mapped);  // address space for 1 MiB
  memory = std::move(*mapped);
  for (std::size_t i = 0; i < kBatch; ++i) {
    buffers[i] = {memory.data() + i * kSlot, kSlot};
    messages[i].msg_hdr.msg_iov = &buffers[i];
    messages[i].msg_hdr.msg_iovlen = 1;
    messages[i].msg_hdr.msg_name = &peers[i];
  }
}

void UdpTable::events(UdpSource& source, u32 events) {
  if ((events & EPOLLERR) != 0) read_errors(source);
  if (!static_cast<Hook<BlockedTag>&>(source).listed()) pull(source);
}

void UdpTable::pull(UdpSource& source) {
  // Another's datagrams wait for room: this one's do too.
  if (!deliver_batch()) return blocked_.push(source);
  for (int failures = 0; failures < 16;) {
    for (auto& message : batch_->messages) message.msg_hdr.msg_namelen = sizeof(sockaddr_storage);
    const int count =
        ::recvmmsg(source.socket.get(), batch_->messages.data(), kBatch, MSG_DONTWAIT, nullptr);
    if (count < 0) {
      if (errno == EAGAIN) return;
      if (errno != EINTR) read_errors(source);  // taken: the next call tells what follows
      ++failures;
      continue;
    }
    batch_->source = &source;
    batch_->at = 0;
    batch_->count = static_cast<u32>(count);
    if (!deliver_batch()) return blocked_.push(source);
    if (static_cast<u32>(count) < kBatch) return;
  }
}

bool UdpTable::deliver_batch() {
  while (batch_->at < batch_->count) {
    const u32 i = batch_->at;
    const u8* bytes = static_cast<const u8*>(batch_->buffers[i].iov_base);
    if (!deliver(Endpoint::of(batch_->peers[i]), *batch_->source,
                 {bytes, batch_->messages[i].msg_len}))
      return false;
    ++batch_->at;
  }
  batch_->clear();
  return true;
}

bool UdpTable::deliver(const Endpoint& from, UdpSource& source, ConstByteSpan payload) {
  UdpFlow* flow = source.is_port ? flow_of_peer(static_cast<UdpPort&>(source), from)
                                 : static_cast<UdpFlow*>(&source);
  if (flow == nullptr) return true;  // no place in the table: lost
  flow->answered = true;
  flow->last_used = context_.now_ms;
  recent_.move_to_back(*flow);
  return context_.link.send_udp(flow->ends.remote, flow->ends.guest, payload);
}

UdpFlow* UdpTable::flow_of_peer(UdpPort& port, const Endpoint& peer) {
  TcpEndpoints ends{port.guest, peer};
  ends.remote.address = context_.guest_view(peer.address, port.guest.address.is_v4());
  for (u32 tries = 0; tries < 64; ++tries) {
    const auto found = flows_.find(ends);
    if (found == flows_.end()) break;
    UdpFlow& flow = *found->second;
    if (flow.port == &port && flow.peer == peer) return &flow;
    ends.remote.port =
        static_cast<u16>(1024 + TcpEndpointsHash{tries + u64{peer.port}}(ends) % (65536 - 1024));
  }
  if (flows_.contains(ends)) return nullptr;
  if (flows_.size() >= max_flows_ && recent_.front() != nullptr) remove(*recent_.front());
  UdpFlow* flow = add(ends, base::UniqueFd());
  if (flow == nullptr) return nullptr;
  flow->port = &port;
  flow->peer = peer;
  flow->answered = true;
  return flow;
}

void UdpTable::room_again() {
  if (!deliver_batch()) return;
  List<UdpSource, BlockedTag> waiting;
  waiting.take(blocked_);
  while (UdpSource* source = waiting.pop()) pull(*source);
}

void UdpTable::read_errors(UdpSource& source) {
  for (;;) {
    u8 payload[256];
    alignas(cmsghdr) u8 control[512];
    iovec buffer{payload, sizeof payload};
    msghdr message{};
    message.msg_iov = &buffer;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    const ssize_t count = ::recvmsg(source.socket.get(), &message, MSG_ERRQUEUE | MSG_DONTWAIT);
    if (count < 0) {
      int error = 0;  // clears what sends and reads would otherwise report
      socklen_t size = sizeof error;
      ::getsockopt(source.socket.get(), SOL_SOCKET, SO_ERROR, &error, &size);
      return;
    }
    if (source.is_port) continue;  // published ports do not ask for errors
    for (cmsghdr* item = CMSG_FIRSTHDR(&message); item != nullptr;
         item = CMSG_NXTHDR(&message, item)) {
      const bool v4 = item->cmsg_level == IPPROTO_IP && item->cmsg_type == IP_RECVERR;
      const bool v6 = item->cmsg_level == IPPROTO_IPV6 && item->cmsg_type == IPV6_RECVERR;
      if (!v4 && !v6) continue;
      const auto detail = base::load<sock_extended_err>(CMSG_DATA(item));
      tell_error(static_cast<UdpFlow&>(source), detail, {payload, static_cast<std::size_t>(count)});
    }
  }
}

void UdpTable::tell_error(UdpFlow& flow, const sock_extended_err& detail, ConstByteSpan payload) {
  const bool v4 = flow.ends.guest.address.is_v4();
  IcmpError error;
  if (detail.ee_errno == EMSGSIZE) {
    if (detail.ee_origin == SO_EE_ORIGIN_LOCAL) return;  // told when it was sent
    error = IcmpError::too_big(detail.ee_info, v4);
  } else if (detail.ee_origin == (v4 ? SO_EE_ORIGIN_ICMP : SO_EE_ORIGIN_ICMP6)) {
    const bool unreachable = detail.ee_type == (v4 ? 3 : 1);
    const bool exceeded = detail.ee_type == (v4 ? 11 : 3);
    if (!unreachable && !exceeded) return;
    error.type = detail.ee_type;
    error.code = detail.ee_code;
  } else {
    error = IcmpError::unreachable(Unreachable::kHost, v4);
  }
  u8 message[8 + 256];
  store_be16(message, flow.ends.guest.port);
  store_be16(message + 2, flow.ends.remote.port);
  store_be16(message + 4, static_cast<u16>(8 + payload.size()));
  store_be16(message + 6, 0);
  std::memcpy(message + 8, payload.data(), payload.size());
  // Who in the world said it does not matter to a guest; the peer itself is nearest to the truth
  // for a closed port, the most frequent.
  send_icmp_error(context_.link, error, flow.ends.remote.address, flow.ends.guest.address,
                  flow.ends.remote.address, kIpUdp,
                  ConstByteSpan(message).first(8 + payload.size()), 8 + payload.size());
}

}  // namespace smol::net::user

// DHCP messages of any bytes behind a right beginning: every answer is one that a client can read.
#include "base/check.h"
#include "base/event_loop.h"
#include "net/user/dhcp.h"
#include "net/user/fuzz_input.h"

namespace {

using namespace smol;
using namespace smol::net::user;

class CountingSink final : public net::FrameSink {
 public:
  std::span<const iovec> reserve(u32) override { return {}; }
  void commit(u32, const net::OffloadHeader&) override {}
  bool deliver(std::span<const iovec> frame, const net::OffloadHeader&) override {
    u8 bytes[2048];
    const std::size_t size = copy_out(frame, 0, bytes);
    CHECK(size >= 14 + 20 + 8 + 300 && size <= 14 + 1500);
    return true;
  }
  void flush() override {}
  net::GuestOffloads offloads() const override { return {}; }
  void transmit_again() override {}
  std::mutex& mutex() override { return mutex_; }

 private:
  std::mutex mutex_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const NatConfig config = [] {
    NatConfig result;
    result.hostname = std::string(300, 'h');
    return result;
  }();
  static auto loop = std::move(*base::EventLoop::create());
  static auto poller = std::move(*Poller::create(*loop));
  static Link link(config);
  static Policy policy(config, std::move(*EgressLog::open("")));
  static Context context{config, link, *poller, policy};
  static CountingSink sink;
  link.attach(sink);
  DhcpServer server(context);
  Packet packet;
  std::vector<u8> message(240);
  const std::size_t head = std::min<std::size_t>(size, 44);
  std::copy_n(data, head, message.begin());
  message[0] = message[1] = 1;
  message[2] = 6;
  store_be32(message.data() + 236, 0x63825363);
  if (size > head && data[head] % 4 != 0)
    message.insert(message.end(), {53, 1, static_cast<u8>(data[head] % 9)});
  message.insert(message.end(), data + head, data + size);
  server.on_message(packet, message);
  server.on_message(packet, {data, size});
  return 0;
}

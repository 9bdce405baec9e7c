// 9P transport device (device 9): one queue, each chain a request and the room for its reply. The
// virtio standard reserves the number without a text; the layout is Linux' (net/9p/trans_virtio.c):
// config space tag_len[2] tag[], feature MOUNT_TAG.
//
// The server's calls may take as long as the host's file system likes, so they are made on a thread
// of the device, and neither vCPUs nor the device loop ever wait for one. A notification only wakes
// that thread, which is short enough to be done on the vCPU's own thread (served_at_once). Requests
// are served one after the other, in the order of the ring; that also makes Tflush right without
// any bookkeeping. The data of Tread and Twrite goes between the host's file and guest memory
// without a copy.
//
// Threads: device.h, and "9p", which holds the mutex while it takes and gives chains, but not while
// it serves one. reset() waits for the request that is being served, with the mutex released.
#pragma once

#include <condition_variable>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "devices/virtio/queue/device.h"
#include "share/server.h"

namespace smol::devices::virtio {

class P9 final : public VirtioDevice {
 public:
  static constexpr u64 kFeatureMountTag = u64{1} << 0;
  static constexpr std::size_t kMaxTag = 64;

  // tag: what the guest names in mount(2); 1 to kMaxTag bytes.
  static Result<std::unique_ptr<P9>> create(std::unique_ptr<share::Server> server,
                                            std::string_view tag);
  ~P9() override;

  // For adding and removing shares, any thread.
  share::Server& server() { return *server_; }

  std::string_view name() const override { return "virtio-9p"; }
  u32 device_id() const override { return 9; }
  u64 features() const override { return kFeatureMountTag; }
  std::span<const u16> queue_sizes() const override { return kQueueSizes; }
  void start() override;
  void pause() override;
  void resume() override;
  void read_config(u64 offset, ByteSpan data) override { read_config_bytes(config_, offset, data); }
  void activate(u64 features, std::span<Queue> queues, DeviceHost& host) override;
  void process_queue(u16 queue) override;
  bool served_at_once(u16) const override { return true; }
  void reset() override;
  std::vector<Counter> counters() const override;

 private:
  static constexpr u16 kQueueSizes[] = {128};

  explicit P9(std::unique_ptr<share::Server> server) : server_(std::move(server)) {}
  void work();
  // The next chain to serve; with lock held.
  std::optional<Chain> take();
  // Returns the bytes of the reply; an Error for a chain that no reply fits in.
  Result<u32> serve(const Chain& chain, GuestMemory& memory);

  std::unique_ptr<share::Server> server_;
  std::vector<u8> config_;

  // Guarded by mutex().
  Queue* queue_ = nullptr;
  DeviceHost* host_ = nullptr;
  bool wake_ = false;
  bool busy_ = false;
  bool paused_ = false;
  bool stop_ = false;
  std::condition_variable changed_;

  // The worker's.
  std::vector<u8> request_;
  std::vector<iovec> data_, room_;
  std::thread worker_;
};

}  // namespace smol::devices::virtio

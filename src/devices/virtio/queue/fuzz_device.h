// For fuzzers: turns input bytes into what a hostile driver can do to a device: contents of guest
// memory, raw descriptors and indices, well-formed chains (so that deep code is reached too),
// notifications, resets, config accesses. A device may answer anything; it must not crash, hang, or
// write outside of guest memory. Header only.
#pragma once

#include <algorithm>
#include <span>
#include <string>

#include "devices/virtio/queue/fake_host.h"

namespace smol::devices::virtio::testing {

// Input bytes as numbers; zeroes after the end.
class FuzzInput {
 public:
  FuzzInput(const u8* data, std::size_t size) : rest_(data, size) {}
  bool done() const { return rest_.empty(); }
  template <class T>
  T take() {
    T value{};
    const std::size_t count = std::min(sizeof(T), rest_.size());
    if (count != 0) std::memcpy(&value, rest_.data(), count);
    rest_ = rest_.subspan(count);
    return value;
  }
  std::string bytes(std::size_t count) {
    count = std::min(count, rest_.size());
    std::string out(reinterpret_cast<const char*>(rest_.data()), count);
    rest_ = rest_.subspan(count);
    return out;
  }
  // Mostly in RAM, near rings and data; sometimes anywhere.
  u64 address() {
    const u8 kind = take<u8>();
    if (kind < 100) return FakeHost::kDataBase + u64{take<u8>()} * 64;
    if (kind < 200) return FakeHost::kQueueBase + take<u16>() % 16384;
    if (kind < 230) return FakeHost::kMemorySize - take<u8>();
    return take<u64>();
  }
  // Mostly small; sometimes anything.
  u32 length() {
    const u8 kind = take<u8>();
    if (kind < 180) return take<u8>();
    if (kind < 240) return take<u16>();
    return take<u32>();
  }

 private:
  std::span<const u8> rest_;
};

inline std::vector<Buffer> fuzz_buffers(FuzzInput& input) {
  std::vector<Buffer> buffers(1 + input.take<u8>() % 5);
  bool writable = false;
  for (Buffer& buffer : buffers) {
    writable |= input.take<u8>() % 3 == 0;  // readable ones first, as the rules want
    buffer = {input.address(), input.length(), writable};
  }
  return buffers;
}

// One thing that a driver does, chosen by the input. host must be active.
inline void fuzz_step(VirtioDevice& device, FakeHost& host, FuzzInput& input, u16 queues) {
  const u16 index = static_cast<u16>(input.take<u8>() % queues);
  FakeQueue& queue = host.driver(index);
  switch (input.take<u8>() % 12) {
    case 0: {
      const u64 address = input.address();
      const std::string bytes = input.bytes(input.take<u8>());
      (void)host.memory->write(GuestPhysical(address),
                               {reinterpret_cast<const u8*>(bytes.data()), bytes.size()});
      break;
    }
    case 1:
    case 2: {
      const auto buffers = fuzz_buffers(input);
      if (queue.can_add(buffers.size())) queue.add(buffers);
      host.kick(index);
      break;
    }
    case 3: {
      const auto buffers = fuzz_buffers(input);
      if (queue.can_add(1)) queue.add_indirect(FakeHost::kDataBase + 0x8000, buffers);
      host.kick(index);
      break;
    }
    case 4:
      queue.write_descriptor(static_cast<u16>(input.take<u8>() % queue.size()),
                             {input.address(), input.length(),
                              static_cast<u16>(input.take<u16>() % 9), input.take<u8>()});
      break;
    case 5:
      queue.publish(input.take<u8>());
      break;
    case 6:
      queue.set_available_index(static_cast<u16>(queue.available_index() + input.take<u8>() % 24));
      break;
    case 7:
      queue.set_used_event(input.take<u16>());
      queue.set_available_flags(input.take<u8>() % 2);
      break;
    case 8: {
      host.reset();
      const u64 wanted = (device.features() | kFeatureEventIndex | kFeatureIndirectDescriptors) &
                         input.take<u64>();
      host.activate(device.accept_features(wanted) ? wanted : 0);
      break;
    }
    case 9: {
      u8 data[8] = {};
      const ByteSpan access = ByteSpan(data).first(1u << (input.take<u8>() % 4));
      std::lock_guard lock(device.mutex());
      device.read_config(input.take<u8>(), access);
      device.write_config(input.take<u8>(), access);
      break;
    }
    default:
      host.kick(index);
      for (int i = 0; i < 64 && queue.take_used(); ++i) {
      }
  }
}

}  // namespace smol::devices::virtio::testing

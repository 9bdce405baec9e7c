// A hostile guest's frames against the segment's services, and its offload headers against the
// software that finishes them.
#include "base/check.h"
#include "net/offload.h"
#include "net/segment_services.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace smol;
  using namespace smol::net;
  static const SegmentServices services(
      {.mac = {0x52, 0x54, 0, 0, 0, 7}, .guest_ip = 0x0a580007, .name = "web", .mtu = 0},
      [](std::string_view name) { return name.size() < 3 ? std::optional<u32>(5) : std::nullopt; },
      [](u32 address) {
        return address % 2 == 0 ? std::optional<std::string>("db") : std::nullopt;
      });
  if (size < 12) return 0;
  // The last bytes say which shape the frame is given, so that deep code is reached.
  const ConstByteSpan input(data, size);
  std::vector<u8> frame(input.begin(), input.end() - 12);
  const u8* const choice = data + size - 12;
  constexpr u8 kDns[] = {0x08, 0,  0x45, 0, 0, 0,  0,  0, 0, 0,    64,   17, 0,
                         0,    10, 88,   0, 7, 10, 88, 0, 1, 0x30, 0x39, 0,  53};
  constexpr u8 kDhcp[] = {0x08, 0, 0x45, 0, 0, 0,   0,   0,   0,   0, 64, 17, 0,
                          0,    0, 0,    0, 0, 255, 255, 255, 255, 0, 68, 0,  67};
  if (choice[0] % 4 < 2 && frame.size() >= 42) {
    std::copy_n(choice[0] % 4 == 0 ? kDns : kDhcp, 26, frame.begin() + 12);
    const std::size_t ip = std::min<std::size_t>(frame.size() - 14, 65535), udp = ip - 20;
    frame[16] = static_cast<u8>(ip >> 8);
    frame[17] = static_cast<u8>(ip);
    frame[38] = static_cast<u8>(udp >> 8);
    frame[39] = static_cast<u8>(udp);
  }
  (void)services.is_ours(frame);
  const auto reply = services.answer(frame);
  CHECK(reply.empty() || reply.size() >= 34);
  auto offload = base::load<OffloadHeader>(choice + 1);
  if (choice[11] % 2 == 0)
    offload.gso_type = choice[11] % 4 == 0 ? OffloadHeader::kTcp4 : OffloadHeader::kTcp6;
  if (frame.size() < 2000 && offload.gso_size < 8)
    offload.gso_size = 8;  // thousands of pieces teach nothing
  std::size_t emitted = 0;
  make_plain(frame, offload, [&](ByteSpan piece) { emitted += piece.size(); });
  return 0;
}

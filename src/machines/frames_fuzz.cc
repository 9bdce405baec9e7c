// A guest that says anything: the reader of its frames, and the conversation above it, neither die
// nor wait.
#include <sys/socket.h>

#include <algorithm>
#include <cstdlib>

#include "guest/protocol/protocol.h"
#include "machines/conversation.h"

using namespace smol;

namespace {

void read_all(ConstByteSpan bytes) {
  machines::FrameReader reader;
  machines::Frame frame;
  std::size_t step = 1;
  while (!bytes.empty()) {
    const ByteSpan room = reader.room();
    const std::size_t count = std::min({room.size(), bytes.size(), step++ * 7});
    std::memcpy(room.data(), bytes.data(), count);
    reader.commit(count);
    bytes = bytes.subspan(count);
    for (;;) {
      const auto more = reader.next(frame);
      if (!more) return;
      if (!*more) break;
      if (frame.payload.size() > SMOL_MAX_DATA) std::abort();
    }
    // A header that passed says how much is missing; it can never be nothing.
    if (reader.missing() == 0) std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  read_all({data, size});
  int ends[2];
  if (size > 60'000 || ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return 0;
  base::UniqueFd guest(ends[1]);
  machines::Conversation host(base::UniqueFd(ends[0]), 1'000'000'000,
                              size % 2 == 0 ? machines::Conversation::Reading::kAhead
                                            : machines::Conversation::Reading::kByFrame);
  std::vector<u8> bytes;
  const smol_hello hello{SMOL_PROTOCOL_VERSION, 0, 0};
  if (size % 3 != 0) machines::append_frame(bytes, SMOL_FRAME_HELLO, base::bytes_of(hello));
  bytes.insert(bytes.end(), data, data + size);
  if (::send(guest.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT) < 0) return 0;
  guest.reset();
  while (host.next()) {
  }
  return 0;
}

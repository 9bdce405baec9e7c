// Host side of the protocol's framing (guest/protocol/protocol.h): bytes of a stream to bounded
// frames and back.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace smol::machines {

struct Frame {
  u16 type = 0;
  ConstByteSpan payload;  // valid until the next call of the reader
};

// Collects a stream. What comes from the guest is not trusted: a length over the type's bound, an
// unknown type or a flag is an Error, after which the connection is useless.
class FrameReader {
 public:
  // Room to receive into, then commit() what arrived.
  ByteSpan room();
  void commit(std::size_t count) { end_ += count; }
  // False when no whole frame is there yet.
  Result<bool> next(Frame& frame);
  // Bytes that the next frame still lacks, as far as can be told: who receives no more than that
  // never reads into what follows the last frame.
  std::size_t missing() const;

 private:
  static constexpr std::size_t kRoom = 256 * kKiB;
  // Not zeroed: what no frame was large enough for takes no memory.
  std::unique_ptr<u8[]> buffer_ = std::make_unique_for_overwrite<u8[]>(kRoom);
  std::size_t begin_ = 0, end_ = 0;
};

void append_frame(std::vector<u8>& out, u16 type, ConstByteSpan payload);

struct RunConfig {
  std::vector<std::string> arguments;    // at least one
  std::vector<std::string> environment;  // NAME=value
  std::string directory, user;
  std::string log;  // a file in the guest, for detached programs and services
  bool tty = false, standard_input = false, detached = false;
  u32 timeout_ms = 0;  // EXEC only; 0: none
  u16 rows = 0, columns = 0;
};
// The payload of CONFIG and EXEC; an Error when it is over the protocol's bounds or a string holds
// a zero byte.
Result<std::vector<u8>> encode_config(const RunConfig& config);
// HELLO's payload: an Error when it is another version's.
Result<> check_hello(ConstByteSpan payload);

}  // namespace smol::machines

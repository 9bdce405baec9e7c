// Host side of the run protocol's framing (guest/protocol/protocol.h): bytes of a stream to bounded frames and back.
#pragma once

#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace smol::machines {

struct Frame {
  u16 type = 0;
  ConstByteSpan payload;  // valid until the next call of the reader
};

// Collects a stream. What comes from the guest is not trusted: a length over the type's bound, an unknown type or a flag is an
// Error, after which the connection is useless.
class FrameReader {
 public:
  // Room to receive into, then commit() what arrived.
  ByteSpan room();
  void commit(std::size_t count) { end_ += count; }
  // False when no whole frame is there yet.
  Result<bool> next(Frame& frame);

 private:
  std::vector<u8> buffer_ = std::vector<u8>(256 * kKiB);
  std::size_t begin_ = 0, end_ = 0;
};

void append_frame(std::vector<u8>& out, u16 type, ConstByteSpan payload);

struct RunConfig {
  std::vector<std::string> arguments;    // at least one
  std::vector<std::string> environment;  // NAME=value
  std::string directory, user, hostname, root_device, root_type;
  u32 root_kind = 0;  // enum smol_root_kind
  bool tty = false, standard_input = false;
  u16 rows = 0, columns = 0;
};
// The payload of CONFIG; an Error when it is over the protocol's bounds or a string holds a zero byte.
Result<std::vector<u8>> encode_config(const RunConfig& config);

}  // namespace smol::machines

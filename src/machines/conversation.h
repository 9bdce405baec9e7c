// A connection to a guest's init or agent, spoken to frame by frame by a caller that may block, but
// never for ever.
#pragma once

#include <string>
#include <vector>

#include "base/fd.h"
#include "machines/frames.h"

namespace smol::machines {

class Conversation {
 public:
  enum class Reading : u8 {
    kAhead,    // as much as there is
    kByFrame,  // nothing beyond the next frame, so that release() gives a stream that lacks nothing
  };
  // patience_ns: the longest silence. 0: none is too long.
  Conversation(base::UniqueFd fd, u64 patience_ns, Reading reading = Reading::kAhead)
      : fd_(std::move(fd)), patience_ns_(patience_ns), reading_(reading) {}

  // A guest that has closed is no Error here: next() gives its last words first.
  Result<> send(u16 type, ConstByteSpan payload);
  Result<> send_bytes(ConstByteSpan bytes);
  // Waits for the next frame; payload valid until the next call. The first one must be HELLO, which
  // is checked and skipped.
  Result<Frame> next();
  // Whether a frame can be had without waiting (also true when the guest has gone, which next()
  // then tells).
  bool ready() const;
  // Where a frame of the guest may come while we send much: reads it, so that neither waits for the
  // other. False: none.
  Result<bool> poll_frame(Frame& frame);
  // Waits until the connection takes bytes or has some.
  Result<> wait(short events);

  int fd() const { return fd_.get(); }
  base::UniqueFd release() { return std::move(fd_); }

 private:
  Result<bool> take(Frame& frame);
  // One receive without waiting. The guest's going is an Error.
  Result<> receive();

  base::UniqueFd fd_;
  u64 patience_ns_;
  Reading reading_;
  FrameReader reader_;
  bool hello_ = false;
};

}  // namespace smol::machines

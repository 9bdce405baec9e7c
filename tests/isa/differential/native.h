// Runs instruction sequences on the host's own processor, in a child that seccomp has reduced to
// read, write, exit and sigreturn. A sequence ends by a signal; its handler takes the registers
// from the frame that the kernel made. Requests and answers lie in memory shared with the child, a
// batch at a time, so that a million sequences take seconds.
#pragma once

#include <sys/types.h>

#include <memory>
#include <span>

#include "base/fd.h"
#include "machine/state.h"

namespace smol::isa {

inline constexpr u32 kMaxCode = 256;
inline constexpr u32 kBatch = 128;

struct NativeRequest {
  UserState state;
  u8 code[kMaxCode];
  u32 size = 0;
};

struct NativeAnswer {
  Outcome outcome;
  u8 data[kWritablePages * kPageSize];
};

struct NativeShared;  // native.cc

class NativeRunner {
 public:
  // The error says what the host lacks.
  static Result<std::unique_ptr<NativeRunner>> create();
  ~NativeRunner();

  NativeRequest& request(u32 i);
  const NativeAnswer& answer(u32 i) const;
  u8* data();  // what the data pages hold when each sequence starts, kDataSize bytes

  // Starts the first `count` requests; finish() waits. A sequence that killed the child has ended
  // == false.
  void start(u32 count);
  void finish();

 private:
  NativeRunner() = default;
  Result<> spawn();
  void stop_child();

  base::Mapping mapping_;
  NativeShared* shared_ = nullptr;
  base::UniqueFd to_child_, from_child_, code_file_;
  pid_t child_ = -1;
};

}  // namespace smol::isa

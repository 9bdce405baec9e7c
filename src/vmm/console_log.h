// A console's output in a file that does not grow without end: what a guest prints is the guest's
// to decide, and its machine may run for years.
//
// One file, cut in place: when it would pass the limit, its newer half stays, from the start of a
// line on. So there is nothing to rename (the monitor reaches no folder for it), and who follows
// the file finds its place again by what he read last. Not for two writers at once.
#pragma once

#include "base/bytes.h"
#include "base/result.h"

namespace smol::vmm {

class ConsoleLog {
 public:
  // fd: stays the caller's; opened for reading and appending where it is a regular file, and only
  // such a file is cut. limit: bytes, 0: none.
  static ConsoleLog of(int fd, u64 limit);

  // To be called before `more` bytes are written (at most `limit` of them count). An Error: the
  // host's; the file may have lost its older part then, and writing goes on.
  Result<> make_room(u64 more);
  void wrote(u64 bytes) { size_ += bytes; }

 private:
  int fd_ = -1;
  u64 limit_ = 0;  // 0: never cut
  u64 size_ = 0;
};

}  // namespace smol::vmm

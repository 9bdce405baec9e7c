// CHECK(condition): our own bugs. Always on; prints the place and aborts. Never used on anything
// that a guest, a file, a user or the host decides.
#pragma once

namespace smol::base {
[[noreturn]] void check_failed(const char* condition, const char* file, int line);
}

#define CHECK(condition)                             \
  (__builtin_expect(static_cast<bool>(condition), 1) \
       ? static_cast<void>(0)                        \
       : ::smol::base::check_failed(#condition, __FILE_NAME__, __LINE__))

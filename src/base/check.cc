#include "base/check.h"

#include <cstdio>
#include <cstdlib>

namespace smol::base {

void check_failed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "smol: internal error: CHECK(%s) at %s:%d\n", condition, file, line);
  std::abort();
}

}  // namespace smol::base

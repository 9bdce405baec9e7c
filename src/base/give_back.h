// Memory of the monitor's own that goes back to the host while its guest idles. What is given back
// is there again with the next access: zeroed (discard), or as the program's file has it.
// Threads: any; the caller sees to it that nobody uses what discard() takes.
#pragma once

#include "base/bytes.h"

namespace smol::base {

// The bytes are zero afterwards; whole pages among them take no memory until they are touched. Of
// private anonymous memory, or of the heap.
void discard(void* start, u64 size);

// Free memory of the heaps, and the pages of the program's file that are mapped (code, constants):
// most served the start, and the rest comes back from the page cache when it is called for.
void give_back_unused();

}  // namespace smol::base

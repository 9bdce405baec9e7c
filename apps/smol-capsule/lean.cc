// What the libraries bring along that a capsule has no use for, replaced by little or nothing. A
// definition here comes before the archive's member of the same name, which is then never linked.
// lean_zstd.c does the same in C. tests/integration/capsule_test.py holds the sum to its bound.
#include <cstdlib>

#include "arch/x86_64/decoders.h"
#include "net/segment.h"
#include "net/tap.h"
#include "storage/open_disk.h"
#include "storage/raw.h"

// libstdc++'s std::terminate prints the exception's demangled type: 60 KB. CHECK has said by then
// what went wrong.
namespace __cxxabiv1 {
extern void (*__terminate_handler)();
void (*__terminate_handler)() = std::abort;
}  // namespace __cxxabiv1

// A capsule's kernel is an ELF file (its section is unpacked already), or a bzImage that unpacks
// itself: none of the five libraries.
namespace smol::arch::x86_64 {
Decoder decoder_for(Compression) { return nullptr; }
}  // namespace smol::arch::x86_64

// Its network is the user-mode one: no TAP device of the host, no segment of the user's machines.
namespace smol::net {
Result<std::unique_ptr<Backend>> open_tap(base::EventLoop&, const TapOptions&) {
  return fail("a capsule has no TAP devices");
}
Result<std::unique_ptr<Backend>> open_segment(base::EventLoop&, const SegmentOptions&) {
  return fail("a capsule joins no network of other machines");
}
}  // namespace smol::net

// Its disks are raw: no qcow2, no zlib.
namespace smol::storage {
Result<std::unique_ptr<Disk>> open_disk(const DiskOptions& options) {
  if (options.window) return RawDisk::create(std::make_unique<WindowFile>(*options.window));
  return RawDisk::open(options.path, options.access);
}
}  // namespace smol::storage

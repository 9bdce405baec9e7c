// The guest's RAM: one memfd, mapped once, shown to the guest under and over the PC's hole below 4
// GiB.
//
// One file, because snapshots, vhost-user, live migration and a live update of the monitor all hand
// that file on. Every access by a device is bounded: an address is the guest's word and may be
// anything. Layout: [0, min(size, kHoleStart)) and, for what is left, [4 GiB, ...). The hole holds
// devices. Threads: the accessors may be called from any thread; what the guest writes at the same
// time may tear.
#pragma once

#include <atomic>
#include <memory>
#include <span>
#include <vector>

#include "base/fd.h"
#include "memory/address.h"

namespace smol::memory {

inline constexpr u64 kHoleStart = 3 * kGiB;  // end of RAM under 4 GiB
inline constexpr u64 kHoleEnd = 4 * kGiB;

struct Region {
  GuestPhysical start;
  u64 size = 0;         // bytes, a multiple of the page size
  u8* host = nullptr;   // mapping of the whole region
  u64 file_offset = 0;  // of the region in the memfd
};

// Told of writes that did not come from a vCPU's own store instruction (device DMA, loaders), when
// the page was watched. The software CPU uses it to drop decoded code. Called on the writer's
// thread, after the write.
class WriteObserver {
 public:
  virtual ~WriteObserver() = default;
  virtual void memory_written(GuestPhysical start, u64 size) = 0;
};

// kShared: one memfd, for whatever hands the memory on (vhost-user, migration). kPrivate: anonymous
// memory in huge pages where the host has them, which spares a hypervisor some thousand page faults
// a boot; fd() is -1.
enum class Backing { kShared, kPrivate };

// Transparent huge pages: asked for, refused, or left to the host's own rule (madvise(2)). kUsual:
// asked for with kPrivate, left alone with kShared.
enum class HugePageAdvice { kUsual, kAsk, kRefuse, kHost };

struct MemoryOptions {
  Backing backing = Backing::kShared;
  HugePageAdvice advice = HugePageAdvice::kUsual;
  bool huge_pages = false;  // of the host's own pool (hugetlb), 2 MiB each, all reserved at once
  bool mergeable = false;   // equal pages may be shared with other processes (KSM); kPrivate only
};

class GuestMemory {
 public:
  // size: bytes, at least one page, a multiple of the page size; an error names the limit
  // otherwise.
  static Result<std::unique_ptr<GuestMemory>> create(u64 size, Backing backing = Backing::kShared) {
    return create(size, MemoryOptions{.backing = backing});
  }
  // Errors name what the host lacks: huge pages, KSM.
  static Result<std::unique_ptr<GuestMemory>> create(u64 size, const MemoryOptions& options);
  ~GuestMemory();
  GuestMemory(const GuestMemory&) = delete;
  GuestMemory& operator=(const GuestMemory&) = delete;

  u64 size() const { return size_; }
  int fd() const { return file_.get(); }
  Backing backing() const { return options_.backing; }
  // write(2) to fd() works, and what it writes appears in the mapping at once (loaders fill pages
  // so without faults).
  bool file_takes_writes() const {
    return options_.backing == Backing::kShared && !options_.huge_pages;
  }
  std::span<const Region> regions() const { return regions_; }
  // One past the highest RAM address.
  GuestPhysical end() const { return regions_.back().start + regions_.back().size; }

  // Host pointer to [start, start+size), which must lie in one region; nullptr when it does not
  // (never aborts).
  u8* find(GuestPhysical start, u64 size) const {
    for (const Region& region : regions_) {
      const u64 offset =
          start.value - region.start.value;  // wraps to a large number below the region
      if (offset < region.size && size <= region.size - offset) return region.host + offset;
    }
    return nullptr;
  }
  bool contains(GuestPhysical start, u64 size) const { return find(start, size) != nullptr; }

  // Errors name the address and the size.
  Result<ByteSpan> slice(GuestPhysical start, u64 size) const;
  Result<> read(GuestPhysical start, ByteSpan into) const;
  Result<> write(GuestPhysical start, ConstByteSpan from);
  template <class T>
  Result<T> load(GuestPhysical start) const {
    T value{};
    TRY(read(start, base::bytes_of(value)));
    return value;
  }
  template <class T>
  Result<> store(GuestPhysical start, const T& value) {
    return write(start, base::bytes_of(value));
  }

  // Whoever wrote through a pointer from find() or slice() says so here, after the write: it marks
  // pages dirty and tells the observer of watched pages. write() and store() do it themselves.
  void note_written(GuestPhysical start, u64 size);

  // Gives whole pages back to the host: they read as zeroes from now on, and are there again with
  // the next access. start and size: multiples of the page size, in one region; of larger host
  // pages only those that lie inside go. The observer and the dirty log hear of it as of a write.
  // Any thread; what others write to the range at the same time may be lost.
  Result<> release(GuestPhysical start, u64 size);

  // One observer; nullptr removes it. Before and after vCPUs run.
  void set_write_observer(WriteObserver* observer) { observer_ = observer; }
  // Marks a page so that note_written() reports it. Any thread. Returns false when start is not
  // RAM.
  bool watch_page(GuestPhysical page);

  // Dirty pages by device writes (vCPU writes are logged by the hypervisor). Bit i = page i of the
  // memfd.
  void enable_dirty_log(bool on) { dirty_on_.store(on, std::memory_order_relaxed); }
  // Takes and clears the log: one bit a page in file order.
  std::vector<u64> take_dirty_log();

 private:
  GuestMemory() = default;
  Result<> map_ram();
  Result<> map_private();
  Result<> advise();
  // Page number in the file, or ~0.
  u64 page_index(GuestPhysical address) const;

  u64 size_ = 0;
  MemoryOptions options_;
  base::UniqueFd file_;
  base::Mapping mapping_;
  u8* host_ = nullptr;  // RAM's start in mapping_
  std::vector<Region> regions_;
  WriteObserver* observer_ = nullptr;
  base::Mapping watched_;  // one byte a page, demand-zero
  base::Mapping dirty_;    // one bit a page, demand-zero
  std::atomic<bool> dirty_on_{false};
};

}  // namespace smol::memory

#include "memory/guest_memory.h"

#include <fcntl.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>

namespace smol::memory {
namespace {

// What the host's and the hypervisor's page tables can map in one piece, when guest and host
// addresses are alike modulo it.
constexpr u64 kHugePage = 2 * kMiB;

std::atomic_ref<u8> atomic_byte(base::Mapping& mapping, u64 index) {
  return std::atomic_ref<u8>(mapping.data()[index]);
}

std::atomic_ref<u64> atomic_word(base::Mapping& mapping, u64 index) {
  return std::atomic_ref<u64>(reinterpret_cast<u64*>(mapping.data())[index]);
}

std::unexpected<Error> no_huge_pages(u64 size, const Error& cause) {
  const auto free =
      base::read_text_file("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
  return wrap(cause,
              "the guest's memory needs {} huge pages of 2 MiB, the host has {} free (see "
              "/proc/sys/vm/nr_hugepages)",
              size / kHugePage, free ? free->substr(0, free->find('\n')) : "none");
}

}  // namespace

Result<std::unique_ptr<GuestMemory>> GuestMemory::create(u64 size, const MemoryOptions& options) {
  if (size == 0 || size % kPageSize != 0)
    return fail("guest memory of {} bytes: it must be a positive multiple of {} bytes", size,
                kPageSize);
  if (size > (u64{1} << 46)) return fail("guest memory of {} bytes is more than 64 TiB", size);
  auto memory = std::unique_ptr<GuestMemory>(new GuestMemory());
  memory->size_ = size;
  memory->options_ = options;
  if (options.huge_pages && size % kHugePage != 0)
    return fail("guest memory of {} bytes in huge pages: it must be a multiple of {} MiB", size,
                kHugePage / kMiB);
  if (options.mergeable && options.backing == Backing::kShared)
    return fail("shared guest memory cannot be mergeable");
  TRY(memory->map_ram());
  const u64 pages = size / kPageSize;
  const int anonymous = MAP_PRIVATE | MAP_NORESERVE;
  TRY_ASSIGN(memory->watched_, base::Mapping::map(pages, PROT_READ | PROT_WRITE, anonymous, -1, 0,
                                                  "the watched-page map"));
  TRY_ASSIGN(memory->dirty_,
             base::Mapping::map(base::align_up(pages, 64) / 8, PROT_READ | PROT_WRITE, anonymous,
                                -1, 0, "the dirty-page map"));
  u8* const host = memory->host_;
  const u64 low = std::min(size, kHoleStart);
  memory->regions_.push_back({GuestPhysical(0), low, host, 0});
  if (size > low)
    memory->regions_.push_back({GuestPhysical(kHoleEnd), size - low, host + low, low});
  return memory;
}

Result<> GuestMemory::map_ram() {
  if (options_.backing == Backing::kPrivate) {
    TRY(map_private());
    // So that smaps tells what is the guest's, as it does for a memfd. Kernels without it do
    // without.
    ::prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, host_, size_, "guest-memory");
    return advise();
  }
  if (options_.huge_pages) {
    file_ = base::UniqueFd(
        ::memfd_create("guest-memory", MFD_CLOEXEC | MFD_HUGETLB | HUGETLB_FLAG_ENCODE_2MB));
    if (!file_.valid()) return fail_errno("cannot create guest memory of huge pages");
    if (::ftruncate(file_.get(), static_cast<off_t>(size_)) != 0)
      return fail_errno("cannot size the guest memory to {} bytes", size_);
  } else {
    TRY_ASSIGN(file_, base::create_memfd("guest-memory", size_));
  }
  // Huge pages are reserved with the mapping: later there is nobody to tell that there are none
  // left.
  const int reserve = options_.huge_pages ? 0 : MAP_NORESERVE;
  auto mapping = base::Mapping::map(size_, PROT_READ | PROT_WRITE, MAP_SHARED | reserve,
                                    file_.get(), 0, "guest memory");
  if (!mapping)
    return options_.huge_pages ? no_huge_pages(size_, mapping.error())
                               : std::unexpected(mapping.error());
  mapping_ = std::move(*mapping);
  host_ = mapping_.data();
  return advise();
}

Result<> GuestMemory::map_private() {
  if (options_.huge_pages) {
    auto mapping = base::Mapping::map(
        size_, PROT_READ | PROT_WRITE,
        MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | HUGETLB_FLAG_ENCODE_2MB, -1, 0, "guest memory");
    if (!mapping) return no_huge_pages(size_, mapping.error());
    mapping_ = std::move(*mapping);
    host_ = mapping_.data();
    return {};
  }
  TRY_ASSIGN(mapping_, base::Mapping::map(size_ + kHugePage, PROT_READ | PROT_WRITE,
                                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0,
                                          "guest memory"));
  const u64 address = reinterpret_cast<u64>(mapping_.data());
  host_ = mapping_.data() + (base::align_up(address, kHugePage) - address);
  return {};
}

Result<> GuestMemory::advise() {
  const bool usual = options_.advice == HugePageAdvice::kUsual;
  // Hints: without huge pages in the kernel all works as well.
  if (options_.advice == HugePageAdvice::kAsk || (usual && options_.backing == Backing::kPrivate))
    ::madvise(host_, size_, MADV_HUGEPAGE);
  if (options_.advice == HugePageAdvice::kRefuse) ::madvise(host_, size_, MADV_NOHUGEPAGE);
  if (options_.mergeable && ::madvise(host_, size_, MADV_MERGEABLE) != 0)
    return fail_errno("cannot make guest memory mergeable (does the host's kernel have KSM?)");
  return {};
}

Result<> GuestMemory::release(GuestPhysical start, u64 size) {
  if (start.value % kPageSize != 0 || size % kPageSize != 0)
    return fail("guest memory: {} bytes at {:#x} are not whole pages", size, start.value);
  TRY_ASSIGN(const ByteSpan bytes, slice(start, size));
  const u64 page = options_.huge_pages ? kHugePage : kPageSize;
  const u64 offset =
      static_cast<u64>(bytes.data() - host_);  // host_ is aligned to whatever the pages are
  const u64 from = base::align_up(offset, page), to = base::align_down(offset + size, page);
  if (from >= to) return {};
  const bool done = options_.backing == Backing::kShared
                        ? ::fallocate(file_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                      static_cast<off_t>(from), static_cast<off_t>(to - from)) == 0
                        : ::madvise(host_ + from, to - from, MADV_DONTNEED) == 0;
  if (!done)
    return fail_errno("cannot give {} bytes of guest memory at {:#x} back", to - from, start.value);
  note_written(start + (from - offset), to - from);
  return {};
}

GuestMemory::~GuestMemory() = default;

Result<ByteSpan> GuestMemory::slice(GuestPhysical start, u64 size) const {
  u8* const host = find(start, size);
  if (host == nullptr)
    return fail("guest memory: {} bytes at {:#x} are not RAM", size, start.value);
  return ByteSpan(host, size);
}

Result<> GuestMemory::read(GuestPhysical start, ByteSpan into) const {
  TRY_ASSIGN(const ByteSpan from, slice(start, into.size()));
  if (!into.empty()) std::memcpy(into.data(), from.data(), into.size());
  return {};
}

Result<> GuestMemory::write(GuestPhysical start, ConstByteSpan from) {
  TRY_ASSIGN(const ByteSpan into, slice(start, from.size()));
  if (from.empty()) return {};
  std::memcpy(into.data(), from.data(), from.size());
  note_written(start, from.size());
  return {};
}

u64 GuestMemory::page_index(GuestPhysical address) const {
  for (const Region& region : regions_) {
    const u64 offset = address.value - region.start.value;
    if (offset < region.size) return (region.file_offset + offset) / kPageSize;
  }
  return ~u64{0};
}

void GuestMemory::note_written(GuestPhysical start, u64 size) {
  if (size == 0) return;
  const bool log_dirty = dirty_on_.load(std::memory_order_relaxed);
  if (observer_ == nullptr && !log_dirty) return;
  // Behind the bytes: either the mark is seen here, or whoever set it sees the bytes.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  bool watched = false;
  const u64 end = start.value + size;
  for (u64 page = base::align_down(start.value, kPageSize); page < end; page += kPageSize) {
    const u64 index = page_index(GuestPhysical(page));
    if (index == ~u64{0}) continue;
    watched |= atomic_byte(watched_, index).load(std::memory_order_acquire) != 0;
    if (log_dirty)
      atomic_word(dirty_, index / 64).fetch_or(u64{1} << (index % 64), std::memory_order_relaxed);
  }
  if (watched && observer_ != nullptr) observer_->memory_written(start, size);
}

bool GuestMemory::watch_page(GuestPhysical page) {
  const u64 index = page_index(page);
  if (index == ~u64{0}) return false;
  // Sequentially consistent with note_written(): a writer that does not see the mark wrote before
  // what is read behind this.
  atomic_byte(watched_, index).store(1, std::memory_order_seq_cst);
  return true;
}

std::vector<u64> GuestMemory::take_dirty_log() {
  std::vector<u64> log(dirty_.size() / 8);
  for (u64 i = 0; i < log.size(); ++i)
    log[i] = atomic_word(dirty_, i).exchange(0, std::memory_order_relaxed);
  return log;
}

}  // namespace smol::memory

// Opening, committing and resizing qcow2 images; see qcow2.h for the order of writes.
#include "storage/qcow2.h"

#include <algorithm>
#include <mutex>
#include <shared_mutex>

#include "base/log.h"
#include "storage/host_file.h"

namespace smol::storage {
namespace {

constexpr u64 kL2CacheBytes = 16 * kMiB;
constexpr u64 kOffsetMask = 0x00fffffffffffe00;
constexpr u64 kCopied = u64{1} << 63;

u64 l2_cache_limit(u64 cluster_size) {
  return std::clamp<u64>(kL2CacheBytes / cluster_size, 4, 2048);
}

}  // namespace

Qcow2Disk::Qcow2Disk(std::unique_ptr<File> file, std::unique_ptr<Disk> backing, Qcow2Header header)
    : file_(std::move(file)),
      backing_(std::move(backing)),
      header_(std::move(header)),
      size_(header_.size),
      l2_(*file_, header_.cluster_size(), l2_cache_limit(header_.cluster_size())),
      refcounts_(*file_, header_, tables_),
      decompressor_(*file_, header_) {}

Result<std::unique_ptr<Qcow2Disk>> Qcow2Disk::open(std::unique_ptr<File> file,
                                                   std::unique_ptr<Disk> backing) {
  TRY_ASSIGN(Qcow2Header header, Qcow2Header::read(*file));
  if (header.size == 0) return fail("{}: the disk in the image has no size", file->path());
  if (header.backing_name.empty() != (backing == nullptr))
    return fail("{}: its backing file {} was not opened with it", file->path(),
                header.backing_name);
  auto disk = std::unique_ptr<Qcow2Disk>(
      new Qcow2Disk(std::move(file), std::move(backing), std::move(header)));
  TRY(disk->load_tables());
  if (!disk->read_only()) TRY(disk->check_writable_image());
  return disk;
}

Result<> Qcow2Disk::load_tables() {
  std::vector<u8> bytes(u64{header_.l1_size} * 8);
  TRY(file_->read_bytes(bytes, header_.l1_offset, AtEnd::kZero));
  l1_.resize(header_.l1_size);
  for (u64 i = 0; i < l1_.size(); ++i) {
    const u64 entry = load_be64(bytes.data() + 8 * i);
    if ((entry & ~(kOffsetMask | kCopied)) != 0 ||
        (entry & kOffsetMask) % header_.cluster_size() != 0)
      return fail("{}: entry {} of the L1 table is {:#x}, not a table", name(), i, entry);
    l1_[i] = entry;
  }
  return {};
}

Result<> Qcow2Disk::check_writable_image() {
  if ((header_.incompatible & kQcow2Corrupt) != 0)
    return fail("{} is marked as corrupt; repair it (qemu-img check -r all) or open it read-only",
                name());
  if ((header_.incompatible & kQcow2Dirty) != 0)
    return fail(
        "{} was not closed by a program that writes its refcounts late; repair it "
        "(qemu-img check -r all) or open it read-only",
        name());
  const auto add = [&](u64 offset, u64 size) {
    for (u64 at = 0; at < size; at += header_.cluster_size())
      tables_.append((offset + at) >> header_.cluster_bits);
  };
  add(0, 1);
  add(header_.l1_offset, u64{header_.l1_size} * 8);
  add(header_.refcount_table_offset, u64{header_.refcount_table_clusters} << header_.cluster_bits);
  if (header_.snapshots != 0) add(header_.snapshots_offset, 1);
  for (const u64 entry : l1_)
    if ((entry & kOffsetMask) != 0) tables_.append((entry & kOffsetMask) >> header_.cluster_bits);
  TRY(refcounts_.load());
  if (!tables_.sort())
    return fail("{}: two of its tables lie in one place; the image is damaged, open it read-only",
                name());
  if (header_.version >= 3 && header_.autoclear != 0) {
    // What these features describe (bitmaps) is not kept up to date here.
    u8 none[8] = {};
    TRY(file_->write_bytes(none, kQcow2AutoclearAt));
    header_.autoclear = 0;
  }
  return {};
}

Qcow2Disk::~Qcow2Disk() {
  if (read_only()) return;
  Result<> done = flush();
  // The counts that went down with the commit.
  if (done && !failed_ && !corrupt_) done = refcounts_.write_dirty();
  if (!done) base::log_error("closing {}: {}", name(), done.error().chain());
}

Result<> Qcow2Disk::usable() const {
  if (failed_)
    return fail("{}: an earlier flush failed, nothing more is written to the image", name());
  if (corrupt_) return fail("{} is corrupt, nothing more is written to it", name());
  return {};
}

// --- Making things stable ---

Result<> Qcow2Disk::flush() {
  if (read_only()) return {};
  if (!dirty_.load(std::memory_order_acquire)) {
    // No table changed: only data that was written in place.
    if (failed_) return usable();
    if (const auto done = file_->sync(); !done) {
      failed_ = true;
      return done;
    }
    return {};
  }
  std::unique_lock lock(lock_);
  return commit();
}

Result<> Qcow2Disk::commit() {
  TRY(usable());
  const auto sync = [&] {
    auto done = file_->sync();
    if (!done) failed_ = true;
    return done;
  };
  TRY(refcounts_.write_dirty());
  TRY(l2_.write_fresh());
  TRY(sync());
  TRY(l2_.write_all());
  for (const u64 index : changed_l1_) {
    u8 entry[8];
    store_be64(entry, l1_[index]);
    TRY(file_->write_bytes(entry, header_.l1_offset + 8 * index));
  }
  TRY(sync());
  changed_l1_.clear();
  dirty_.store(false, std::memory_order_release);
  return refcounts_.apply_released();
}

Result<> Qcow2Disk::commit_if_crowded() {
  if (!l2_.crowded() && !refcounts_.crowded()) return {};
  return commit();
}

// A write that would hit a table: the image is damaged, and says so from now on.
Result<> Qcow2Disk::check_not_table(u64 host, u64 size) {
  const u64 first = host >> header_.cluster_bits;
  const u64 last = (host + size - 1) >> header_.cluster_bits;
  if (!tables_.meets(first, last - first + 1)) return {};
  corrupt_ = true;
  if (header_.version >= 3) {
    header_.incompatible |= kQcow2Corrupt;
    u8 bits[8];
    store_be64(bits, header_.incompatible);
    TRY(file_->write_bytes(bits, kQcow2IncompatibleAt));
  }
  return fail("{}: a data cluster at {:#x} lies on a table of the image; it is corrupt now", name(),
              host);
}

// --- Growing ---

Result<> Qcow2Disk::resize(u64 size) {
  TRY(check_new_size(*this, size));
  std::unique_lock lock(lock_);
  TRY(usable());
  if (header_.snapshots != 0)
    return fail("{}: an image with internal snapshots cannot be resized; delete them first",
                name());
  const u64 old_size = header_.size;
  if (size == old_size) return {};
  const u64 entries = header_.l1_needed(size);
  if (entries * 8 > kQcow2MaxL1Bytes)
    return fail("{}: {} bytes are too many for clusters of {} bytes", name(), size,
                header_.cluster_size());
  if (entries > l1_.size()) TRY(grow_l1(entries));
  header_.size = size;
  // What lies behind the old end must not come to light: the rest of the last cluster, and what a
  // longer backing file has.
  const u64 cluster_end = std::min(size, base::align_up(old_size, header_.cluster_size()));
  const u64 zero_end =
      backing_ ? std::min(size, std::max(cluster_end, backing_->size())) : cluster_end;
  Result<> done =
      zero_end > old_size ? zero_clusters(old_size, zero_end - old_size, true) : Result<>();
  if (done) done = commit();
  u8 field[8];
  store_be64(field, size);
  if (done) done = file_->write_bytes(field, kQcow2SizeAt);
  if (done) done = file_->sync();
  if (!done) {
    header_.size = old_size;
    return done;
  }
  size_.store(size, std::memory_order_release);
  return {};
}

Result<> Qcow2Disk::grow_l1(u64 entries) {
  TRY(commit());  // so that the table in the file is this one
  const u64 clusters = (entries * 8 + header_.cluster_size() - 1) >> header_.cluster_bits;
  TRY_ASSIGN(const u64 first, refcounts_.allocate_table(clusters));
  dirty_ = true;
  std::vector<u8> bytes(clusters << header_.cluster_bits);
  for (u64 i = 0; i < l1_.size(); ++i) store_be64(bytes.data() + 8 * i, l1_[i]);
  TRY(file_->write_bytes(bytes, first << header_.cluster_bits));
  TRY(commit());
  u8 fields[12];
  store_be32(fields, static_cast<u32>(entries));
  store_be64(fields + 4, first << header_.cluster_bits);
  TRY(file_->write_bytes(fields, kQcow2L1At));
  TRY(file_->sync());
  const u64 old_first = header_.l1_offset >> header_.cluster_bits;
  const u64 old_clusters =
      (u64{header_.l1_size} * 8 + header_.cluster_size() - 1) >> header_.cluster_bits;
  for (u64 i = 0; i < old_clusters; ++i) {
    tables_.remove(old_first + i);
    refcounts_.release_later(old_first + i);
  }
  for (u64 i = 0; i < clusters; ++i) tables_.insert(first + i);
  header_.l1_offset = first << header_.cluster_bits;
  header_.l1_size = static_cast<u32>(entries);
  l1_.resize(entries);
  dirty_ = true;
  return {};
}

// --- New images ---

Result<> Qcow2Disk::format(File& file, const Qcow2Layout& layout) {
  Qcow2Header header;
  header.version = layout.version;
  header.cluster_bits = layout.cluster_bits;
  header.refcount_order = layout.version < 3 ? 4 : layout.refcount_order;
  header.size = layout.size;
  header.backing_name = layout.backing_name;
  header.backing_format = layout.backing_format;
  const u64 cluster = header.cluster_size();
  const u64 most = kQcow2MaxL1Bytes / 8 * header.l2_reach();
  if (layout.size == 0 || layout.size % kSectorSize != 0 || layout.size > most)
    return fail("{}: a qcow2 image of {} bytes: a multiple of 512 up to {} is needed", file.path(),
                layout.size, most);
  if (layout.backing_name.size() > 1023 || header.encode().size() > cluster)
    return fail("{}: the name of its backing file is too long", file.path());
  header.l1_size = static_cast<u32>(header.l1_needed(layout.size));
  // Header, refcount table (one cluster), refcount blocks, L1 table.
  const u64 l1_clusters = (u64{header.l1_size} * 8 + cluster - 1) / cluster;
  const u64 per_block = cluster * 8 >> header.refcount_order;
  u64 blocks = 1;
  while (blocks * per_block < 2 + blocks + l1_clusters) ++blocks;
  const u64 used = 2 + blocks + l1_clusters;
  if (blocks * 8 > cluster)
    return fail("{}: {} bytes are too many for clusters of {} bytes", file.path(), layout.size,
                cluster);
  header.refcount_table_offset = cluster;
  header.refcount_table_clusters = 1;
  header.l1_offset = (2 + blocks) * cluster;
  std::vector<u8> table(cluster), counts(blocks * cluster);
  for (u64 b = 0; b < blocks; ++b) store_be64(table.data() + 8 * b, (2 + b) * cluster);
  for (u64 i = 0; i < used; ++i) store_refcount(counts.data(), header.refcount_order, i, 1);
  TRY(file.set_size(used * cluster));
  TRY(file.write_bytes(table, cluster));
  TRY(file.write_bytes(counts, 2 * cluster));
  TRY(file.sync());
  TRY(file.write_bytes(header.encode(), 0));
  return file.sync();
}

Result<> Qcow2Disk::create(const std::string& path, const Qcow2Layout& layout) {
  TRY_ASSIGN(const auto file, HostFile::create(path));
  return format(*file, layout);
}

}  // namespace smol::storage

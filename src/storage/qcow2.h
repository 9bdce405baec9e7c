// qcow2 images, versions 2 and 3, read and written (docs/formats/qcow2.md; source: QEMU,
// docs/interop/qcow2).
//
// What a crash leaves. Data goes to the file at once, tables stay in memory and go out together, at
// the latest with the guest's next flush (commit()):
//   1. refcounts and L2 tables that nothing refers to yet, sync;
//   2. L2 tables and L1 entries that changed, sync;
//   3. counts of what nothing refers to any more go down, in memory.
// So what refers is never on stable storage before what it refers to, and a cluster is not used
// again before the last reference is gone. A crash at any point, with the host losing any part of
// what was not synced, leaves the image as of the last flush plus some of the writes behind it,
// and at worst clusters that are counted and not used.
//
// A cluster that others may use too (a snapshot, no COPIED flag) is copied before it is written, as
// are compressed and zero clusters.
//
// Threads: any number; requests for clusters that are there run side by side under the lock held
// shared, what changes tables holds it alone.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <set>

#include "storage/cluster_set.h"
#include "storage/disk.h"
#include "storage/qcow2_cache.h"
#include "storage/qcow2_compressed.h"
#include "storage/qcow2_header.h"
#include "storage/qcow2_refcounts.h"
#include "storage/read_write_lock.h"

namespace smol::storage {

class BufferCursor;

// A new image.
struct Qcow2Layout {
  u64 size = 0;                     // bytes
  std::string backing_name = {};    // as the image is to name it: relative to its own folder
  std::string backing_format = {};  // raw or qcow2
  u32 cluster_bits = 16;
  u32 refcount_order = 4;
  u32 version = 3;
};

class Qcow2Disk final : public Disk {
 public:
  // file: read-only or writable, which the disk then is, too. backing: what lies under the image,
  // read-only, when its header names one (see backing_of()); the disk reads zeroes behind its end.
  // Errors name the file: damaged tables, features that are not supported; for writing also an
  // image that is marked as corrupt or whose refcounts are not up to date.
  static Result<std::unique_ptr<Qcow2Disk>> open(std::unique_ptr<File> file,
                                                 std::unique_ptr<Disk> backing = nullptr);
  // Writes a new image into the empty file; nothing of the backing file is looked at.
  static Result<> format(File& file, const Qcow2Layout& layout);
  // The same in a new file at path.
  static Result<> create(const std::string& path, const Qcow2Layout& layout);
  // Commits.
  ~Qcow2Disk() override;

  std::string_view name() const override { return file_->path(); }
  u64 size() const override { return size_.load(std::memory_order_acquire); }
  bool read_only() const override { return file_->read_only(); }
  u32 block_size() const override { return file_->block_size(); }
  u64 discard_alignment() const override { return header_.cluster_size(); }
  Result<> read(std::span<const iovec> buffers, u64 offset) override;
  Result<> write(std::span<const iovec> buffers, u64 offset) override;
  bool try_read(std::span<const iovec> buffers, u64 offset) override;
  bool try_write(std::span<const iovec> buffers, u64 offset) override;
  Result<> flush() override;
  Result<> discard(u64 offset, u64 size) override;
  Result<> write_zeroes(u64 offset, u64 size, bool may_unmap) override;
  Result<> resize(u64 size) override;

 private:
  using Table = Qcow2Cache::Table;
  enum class Kind { kUnallocated, kZero, kData, kCompressed };
  // An L2 entry, checked.
  struct Entry {
    Kind kind = Kind::kUnallocated;
    u64 host = 0;         // kData, and kZero that keeps its cluster: offset in the file; 0: none
    bool copied = false;  // the host cluster is this image's alone
    u64 raw = 0;
  };
  // A piece of the disk whose clusters are alike, and follow each other in the file for kData.
  struct Extent {
    Entry entry;            // of the first cluster
    u64 host = 0;           // of the first byte, kData
    u64 size = 0;           // bytes
    bool in_place = false;  // kData, may be written where it is
  };

  explicit Qcow2Disk(std::unique_ptr<File> file, std::unique_ptr<Disk> backing, Qcow2Header header);
  Result<> load_tables();
  Result<> check_writable_image();

  // qcow2_map.cc. Lock held shared or alone.
  Result<Entry> decode(u64 raw, u64 guest_offset) const;
  Result<u64> l2_offset(u64 l1_index) const;
  // nullopt: the L2 table is not in memory.
  Result<std::optional<Extent>> find_extent(u64 offset, u64 at_most) const;
  bool may_write_in_place(const Extent& extent) const;
  Extent extent_in(const Table& table, bool l2_copied, u64 offset, u64 at_most,
                   const Entry& first) const;
  // Lock held alone.
  Result<Extent> load_extent(u64 offset, u64 at_most);
  Result<Table*> writable_l2(u64 l1_index);
  void set_entry(Table& table, u64 index, u64 raw);
  Result<> release(const Entry& entry);

  Result<> read_extent(const Extent& extent, u64 offset, std::span<const iovec> buffers);
  Result<> read_backing(std::span<const iovec> buffers, u64 offset);
  // Lock held alone: what the disk has there, zeroes behind its end.
  Result<> read_old(ByteSpan into, u64 offset);

  // qcow2_write.cc. Lock held alone.
  Result<u64> write_new(BufferCursor& cursor, u64 offset, u64 left);
  Result<u64> write_reused(BufferCursor& cursor, u64 offset, u64 left, Table& table, u64 index,
                           const Entry& entry);
  Result<> write_padded(BufferCursor& cursor, u64 offset, u64 size, u64 host);
  Result<> zero_clusters(u64 offset, u64 size, bool may_unmap);
  Result<> zero_in_table(u64 offset, u64 end, bool may_unmap);
  Result<> write_zero_bytes(u64 offset, u64 size);
  Result<> check_not_table(u64 host, u64 size);
  Result<> commit();
  Result<> commit_if_crowded();
  Result<> usable() const;
  // Lock held alone.
  Result<> grow_l1(u64 entries);

  u64 index_in_l2(u64 offset) const {
    return (offset >> header_.cluster_bits) & (header_.l2_entries() - 1);
  }
  u64 l1_index(u64 offset) const { return offset / header_.l2_reach(); }

  const std::unique_ptr<File> file_;
  const std::unique_ptr<Disk> backing_;
  ReadWriteLock lock_;  // guards all below, but for atomics
  Qcow2Header header_;
  std::atomic<u64> size_{0};
  std::vector<u64> l1_;
  std::set<u64> changed_l1_;  // indices
  ClusterSet tables_;         // clusters that hold the header and tables, when writable
  Qcow2Cache l2_;
  Qcow2Refcounts refcounts_;
  Qcow2Decompressor decompressor_;
  std::atomic<bool> dirty_{false};   // commit() has something to do
  std::atomic<bool> failed_{false};  // a sync failed: what is on stable storage is not known
  std::atomic<bool> corrupt_{false};
};

}  // namespace smol::storage

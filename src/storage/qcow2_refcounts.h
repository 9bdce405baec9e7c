// Reference counts of a qcow2 file's clusters, and which cluster is given out next (QEMU,
// docs/interop/qcow2: "Host cluster management").
//
// A crash may leave counts too high (a leak, which a check finds), never too low. So: an increase
// is on stable storage before anything refers to the cluster (write_dirty(), then the owner syncs,
// then it writes what refers); a decrease happens in memory only after what referred is gone from
// stable storage (release_later(), the owner's sync, then apply_released()). A new refcount block
// and a new refcount table are synced before they are referred to; both are rare.
#pragma once

#include <vector>

#include "storage/cluster_set.h"
#include "storage/qcow2_cache.h"
#include "storage/qcow2_header.h"

namespace smol::storage {

// One count of 1 << order bits in a refcount block.
u64 load_refcount(const u8* block, u32 order, u64 index);
void store_refcount(u8* block, u32 order, u64 index, u64 value);

// Threads: the owner's lock held alone. An Error names the file.
class Qcow2Refcounts {
 public:
  struct Run {
    u64 first = 0;  // clusters
    u64 count = 0;
  };

  // tables: where all tables of the image are; refcount blocks and tables are added and removed.
  Qcow2Refcounts(File& file, Qcow2Header& header, ClusterSet& tables);
  // Reads the refcount table and notes where the blocks are.
  Result<> load();

  Result<u64> get(u64 cluster);
  // 1 to at_most free clusters in a row, their counts 1 now.
  Result<Run> allocate(u64 at_most);
  // Exactly count in a row, behind all that is in use (for tables of several clusters).
  Result<u64> allocate_table(u64 count);
  // Takes back what allocate() gave and nothing refers to yet.
  Result<> take_back(Run run);
  // One reference will be gone with the owner's next commit.
  void release_later(u64 cluster) { released_.push_back(cluster); }
  bool crowded() const { return cache_.crowded() || released_.size() >= kMaxReleased; }
  bool dirty() const { return cache_.dirty() || !released_.empty(); }

  Result<> write_dirty() { return cache_.write_all(); }
  // Counts down what was released, and gives clusters that nothing uses any more back to the host.
  Result<> apply_released();

 private:
  static constexpr u64 kMaxReleased = 1 << 16;

  u64 block_of(u64 cluster) const { return cluster >> block_bits_; }
  u64 index_in_block(u64 cluster) const { return cluster & ((u64{1} << block_bits_) - 1); }
  // nullptr: no block covers the cluster, its count is 0.
  Result<Qcow2Cache::Table*> block_for(u64 cluster);
  Result<> add_block(u64 block, u64 at_cluster);
  Result<> grow_table();
  Result<> write_grown_table(u64 first, u64 blocks, u64 table_clusters);
  Result<> add(u64 cluster, bool up);
  Result<bool> take_if_free(u64 cluster);

  File& file_;
  Qcow2Header& header_;
  ClusterSet& tables_;
  const u64 cluster_bits_;
  const u64 block_bits_;    // log2 of the counts in a block
  const u64 largest_;       // value of a count
  std::vector<u64> table_;  // offsets of blocks; 0: none
  Qcow2Cache cache_;
  u64 next_free_ = 0;  // no cluster below is free
  std::vector<u64> released_;
};

}  // namespace smol::storage

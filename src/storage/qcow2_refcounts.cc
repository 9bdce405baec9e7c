#include "storage/qcow2_refcounts.h"

#include <algorithm>

namespace smol::storage {
namespace {

constexpr u64 kCacheBytes = 4 * kMiB;
constexpr u64 kBlockOffsetMask = ~u64{511};
constexpr u64 kLargestOffset = u64{1} << 56;

u64 cache_limit(u64 cluster_size) { return std::clamp<u64>(kCacheBytes / cluster_size, 4, 1024); }

}  // namespace

u64 load_refcount(const u8* block, u32 order, u64 index) {
  switch (order) {
    case 3:
      return block[index];
    case 4:
      return load_be16(block + 2 * index);
    case 5:
      return load_be32(block + 4 * index);
    case 6:
      return load_be64(block + 8 * index);
    default: {
      const u64 bit = index << order;
      return block[bit / 8] >> (bit % 8) & ((1u << (1u << order)) - 1);
    }
  }
}

void store_refcount(u8* block, u32 order, u64 index, u64 value) {
  switch (order) {
    case 3:
      block[index] = static_cast<u8>(value);
      return;
    case 4:
      return store_be16(block + 2 * index, static_cast<u16>(value));
    case 5:
      return store_be32(block + 4 * index, static_cast<u32>(value));
    case 6:
      return store_be64(block + 8 * index, value);
    default: {
      const u64 bit = index << order;
      const u64 mask = (u64{1} << (1u << order)) - 1;
      u8& byte = block[bit / 8];
      byte = static_cast<u8>((byte & ~(mask << (bit % 8))) | value << (bit % 8));
    }
  }
}

Qcow2Refcounts::Qcow2Refcounts(File& file, Qcow2Header& header, ClusterSet& tables)
    : file_(file),
      header_(header),
      tables_(tables),
      cluster_bits_(header.cluster_bits),
      block_bits_(header.cluster_bits + 3 - header.refcount_order),
      largest_(header.refcount_order == 6 ? ~u64{0}
                                          : (u64{1} << (1u << header.refcount_order)) - 1),
      cache_(file, header.cluster_size(), cache_limit(header.cluster_size())) {}

Result<> Qcow2Refcounts::load() {
  std::vector<u8> bytes(u64{header_.refcount_table_clusters} << cluster_bits_);
  TRY(file_.read_bytes(bytes, header_.refcount_table_offset, AtEnd::kZero));
  table_.resize(bytes.size() / 8);
  for (u64 i = 0; i < table_.size(); ++i) {
    const u64 entry = load_be64(bytes.data() + 8 * i);
    table_[i] = entry & kBlockOffsetMask;
    if (entry != table_[i] || entry % header_.cluster_size() != 0 || entry >= kLargestOffset)
      return fail("{}: entry {} of the refcount table is {:#x}, not a cluster", file_.path(), i,
                  entry);
    if (entry != 0) tables_.append(entry >> cluster_bits_);
  }
  return {};
}

Result<Qcow2Cache::Table*> Qcow2Refcounts::block_for(u64 cluster) {
  const u64 block = block_of(cluster);
  if (block >= table_.size() || table_[block] == 0) return nullptr;
  return cache_.load(table_[block]);
}

Result<u64> Qcow2Refcounts::get(u64 cluster) {
  TRY_ASSIGN(const Qcow2Cache::Table* const block, block_for(cluster));
  if (block == nullptr) return 0;
  return load_refcount(block->bytes.data(), header_.refcount_order, index_in_block(cluster));
}

Result<> Qcow2Refcounts::add(u64 cluster, bool up) {
  TRY_ASSIGN(Qcow2Cache::Table* const block, block_for(cluster));
  const u64 index = index_in_block(cluster);
  const u64 count =
      block == nullptr ? 0 : load_refcount(block->bytes.data(), header_.refcount_order, index);
  if (up ? block == nullptr || count == largest_ : count == 0)
    return fail(
        "{}: cluster {} has {} references and cannot have one {}; check the image "
        "(qemu-img check)",
        file_.path(), cluster, count, up ? "more" : "less");
  store_refcount(block->bytes.data(), header_.refcount_order, index, up ? count + 1 : count - 1);
  cache_.mark_dirty(*block);
  if (!up && count == 1) next_free_ = std::min(next_free_, cluster);
  return {};
}

Result<bool> Qcow2Refcounts::take_if_free(u64 cluster) {
  TRY_ASSIGN(const u64 count, get(cluster));
  if (count != 0) return false;
  if (tables_.meets(cluster, 1))
    return fail(
        "{}: cluster {} holds a table but is counted as free; check the image "
        "(qemu-img check -r all)",
        file_.path(), cluster);
  TRY(add(cluster, true));
  return true;
}

Result<Qcow2Refcounts::Run> Qcow2Refcounts::allocate(u64 at_most) {
  Run run{.first = next_free_};
  for (;; ++run.first) {
    const u64 block = block_of(run.first);
    if (run.first >= kLargestOffset >> cluster_bits_) return fail("{}: is full", file_.path());
    if (block >= table_.size()) {
      TRY(grow_table());
    } else if (table_[block] == 0) {
      TRY(add_block(block, run.first));
    } else {
      TRY_ASSIGN(const bool taken, take_if_free(run.first));
      if (taken) break;
    }
  }
  // Free ones behind it, of the same block.
  for (run.count = 1; run.count < at_most; ++run.count) {
    const u64 next = run.first + run.count;
    if (block_of(next) != block_of(run.first)) break;
    const auto taken = take_if_free(next);
    if (!taken || !*taken) break;
  }
  next_free_ = run.first + run.count;
  return run;
}

Result<u64> Qcow2Refcounts::allocate_table(u64 count) {
  // Behind the file's end nothing is in use; whole blocks may have to be added on the way.
  u64 first = std::max(next_free_, (file_.size() + header_.cluster_size() - 1) >> cluster_bits_);
  u64 got = 0;
  while (got != count) {
    const u64 cluster = first + got;
    const u64 block = block_of(cluster);
    u64 again = cluster;  // where to begin again, when the row is broken here
    if (cluster >= kLargestOffset >> cluster_bits_) return fail("{}: is full", file_.path());
    if (block >= table_.size()) {
      TRY(grow_table());
    } else if (table_[block] == 0) {
      TRY(add_block(block, cluster));
    } else {
      TRY_ASSIGN(const bool taken, take_if_free(cluster));
      if (taken) {
        ++got;
        continue;
      }
      again = cluster + 1;
    }
    TRY(take_back({first, got}));
    first = again;
    got = 0;
  }
  return first;
}

Result<> Qcow2Refcounts::take_back(Run run) {
  for (u64 i = 0; i < run.count; ++i) TRY(add(run.first + i, false));
  return {};
}

// A block that counts itself: it lies at the first free cluster of those that it covers.
Result<> Qcow2Refcounts::add_block(u64 block, u64 at_cluster) {
  if (tables_.meets(at_cluster, 1))
    return fail(
        "{}: cluster {} holds a table but is counted as free; check the image "
        "(qemu-img check -r all)",
        file_.path(), at_cluster);
  const u64 offset = at_cluster << cluster_bits_;
  Qcow2Cache::Table* const table = cache_.create(offset);
  store_refcount(table->bytes.data(), header_.refcount_order, index_in_block(at_cluster), 1);
  Result<> done = file_.write_bytes(table->bytes, offset);
  if (done) done = file_.sync();
  u8 entry[8];
  store_be64(entry, offset);
  if (done) done = file_.write_bytes(entry, header_.refcount_table_offset + 8 * block);
  if (!done) {
    cache_.forget(offset);
    return done;
  }
  table_[block] = offset;
  tables_.insert(at_cluster);
  return {};
}

// The table is full, so nothing behind what it covers is in use: the new table goes there, with the
// blocks that count it.
Result<> Qcow2Refcounts::grow_table() {
  const u64 first = static_cast<u64>(table_.size()) << block_bits_;
  const u64 per_block = u64{1} << block_bits_;
  u64 blocks = 0, clusters = 0;
  for (u64 last = ~u64{0}; last != blocks;) {
    last = blocks;
    const u64 entries = std::max<u64>(table_.size() * 3 / 2, table_.size() + blocks + 1);
    clusters = (entries * 8 + header_.cluster_size() - 1) >> cluster_bits_;
    blocks = (blocks + clusters + per_block - 1) / per_block;
  }
  if (clusters << cluster_bits_ > kQcow2MaxRefcountTableBytes)
    return fail("{}: the refcount table would be larger than {} bytes", file_.path(),
                kQcow2MaxRefcountTableBytes);
  return write_grown_table(first, blocks, clusters);
}

Result<> Qcow2Refcounts::write_grown_table(u64 first, u64 blocks, u64 table_clusters) {
  const u64 old_size = table_.size();
  std::vector<u64> entries = table_;
  entries.resize((table_clusters << cluster_bits_) / 8);
  const u64 per_block = u64{1} << block_bits_;
  const u64 used = blocks + table_clusters;
  for (u64 b = 0; b < blocks; ++b) {
    entries[old_size + b] = (first + b) << cluster_bits_;
    std::vector<u8> counts(header_.cluster_size());
    for (u64 i = b * per_block; i < std::min(used, (b + 1) * per_block); ++i)
      store_refcount(counts.data(), header_.refcount_order, i - b * per_block, 1);
    TRY(file_.write_bytes(counts, entries[old_size + b]));
  }
  std::vector<u8> bytes(table_clusters << cluster_bits_);
  for (u64 i = 0; i < entries.size(); ++i) store_be64(bytes.data() + 8 * i, entries[i]);
  const u64 offset = (first + blocks) << cluster_bits_;
  TRY(file_.write_bytes(bytes, offset));
  TRY(file_.sync());
  u8 fields[12];
  store_be64(fields, offset);
  store_be32(fields + 8, static_cast<u32>(table_clusters));
  TRY(file_.write_bytes(fields, kQcow2RefcountTableAt));
  TRY(file_.sync());

  const u64 old_first = header_.refcount_table_offset >> cluster_bits_;
  for (u64 i = 0; i < header_.refcount_table_clusters; ++i) {
    tables_.remove(old_first + i);
    release_later(old_first + i);
  }
  for (u64 i = 0; i < used; ++i) tables_.insert(first + i);
  for (u64 b = 0; b < blocks; ++b) cache_.forget((first + b) << cluster_bits_);
  header_.refcount_table_offset = offset;
  header_.refcount_table_clusters = static_cast<u32>(table_clusters);
  table_ = std::move(entries);
  return {};
}

Result<> Qcow2Refcounts::apply_released() {
  std::ranges::sort(released_);
  u64 first = 0, count = 0;  // a run of clusters that are free now
  // Where the host cannot give space back, the file only stays as large as it is.
  const auto punch = [&] {
    if (count != 0) (void)file_.punch(first << cluster_bits_, count << cluster_bits_);
    count = 0;
  };
  // A damaged count stops neither the others, nor is it tried again.
  const std::vector<u64> released = std::exchange(released_, {});
  Result<> all;
  for (const u64 cluster : released) {
    auto done = add(cluster, false);
    const Result<u64> left = done ? get(cluster) : Result<u64>(1);
    if (!done && all) all = std::move(done);
    if (!left || *left != 0) continue;
    if (count == 0 || cluster != first + count) {
      punch();
      first = cluster;
    }
    ++count;
  }
  punch();
  return all;
}

}  // namespace smol::storage

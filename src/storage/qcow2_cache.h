// Cluster-sized tables of a qcow2 file (L2 tables, refcount blocks) in memory, at most a given
// number of clean ones. A changed table stays until it was written: when it is written is the
// owner's business, who keeps the order that a crash needs.
#pragma once

#include <atomic>
#include <memory>
#include <unordered_map>
#include <vector>

#include "storage/file.h"

namespace smol::storage {

// Threads: find() under the owner's lock held shared; all else with it held alone.
class Qcow2Cache {
 public:
  struct Table {
    u64 offset = 0;  // in the file
    std::vector<u8> bytes;
    bool dirty = false;
    bool fresh = false;  // dirty, and nothing on stable storage refers to it yet
    mutable std::atomic<u64> used{0};
  };

  // table_size: bytes. limit: tables.
  Qcow2Cache(File& file, u64 table_size, u64 limit)
      : file_(file), table_size_(table_size), limit_(limit) {}

  // nullptr: not in memory.
  Table* find(u64 offset) const;
  // The table stays where it is until the next load() or create().
  Result<Table*> load(u64 offset);
  // A table of zeroes, dirty; an old one at the offset is forgotten.
  Table* create(u64 offset);
  void mark_dirty(Table& table);
  void forget(u64 offset);

  // What has to be written is more than the cache is meant to hold: the owner commits.
  bool crowded() const { return dirty_ >= limit_; }
  bool dirty() const { return dirty_ != 0; }
  Result<> write_fresh() { return write(true); }
  Result<> write_all() { return write(false); }

 private:
  Result<> write(bool only_fresh);
  void make_room();

  File& file_;
  const u64 table_size_;
  const u64 limit_;
  u64 dirty_ = 0;
  mutable std::atomic<u64> clock_{0};
  std::unordered_map<u64, std::unique_ptr<Table>> tables_;
};

}  // namespace smol::storage

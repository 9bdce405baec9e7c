#include "storage/qcow2_cache.h"

#include <algorithm>

namespace smol::storage {

Qcow2Cache::Table* Qcow2Cache::find(u64 offset) const {
  const auto found = tables_.find(offset);
  if (found == tables_.end()) return nullptr;
  found->second->used.store(clock_.fetch_add(1, std::memory_order_relaxed),
                            std::memory_order_relaxed);
  return found->second.get();
}

Result<Qcow2Cache::Table*> Qcow2Cache::load(u64 offset) {
  if (Table* const known = find(offset)) return known;
  make_room();
  auto table = std::make_unique<Table>();
  table->offset = offset;
  table->bytes.resize(table_size_);
  TRY(file_.read_bytes(table->bytes, offset, AtEnd::kZero));
  Table* const at = table.get();
  tables_[offset] = std::move(table);
  return at;
}

Qcow2Cache::Table* Qcow2Cache::create(u64 offset) {
  forget(offset);
  make_room();
  auto table = std::make_unique<Table>();
  table->offset = offset;
  table->bytes.resize(table_size_);
  table->fresh = true;
  Table* const at = table.get();
  tables_[offset] = std::move(table);
  mark_dirty(*at);
  return at;
}

void Qcow2Cache::mark_dirty(Table& table) {
  if (!table.dirty) ++dirty_;
  table.dirty = true;
}

void Qcow2Cache::forget(u64 offset) {
  const auto found = tables_.find(offset);
  if (found == tables_.end()) return;
  if (found->second->dirty) --dirty_;
  tables_.erase(found);
}

void Qcow2Cache::make_room() {
  if (tables_.size() < limit_) return;
  auto oldest = tables_.end();
  for (auto it = tables_.begin(); it != tables_.end(); ++it) {
    if (it->second->dirty) continue;
    if (oldest == tables_.end() || it->second->used < oldest->second->used) oldest = it;
  }
  if (oldest != tables_.end()) tables_.erase(oldest);
}

Result<> Qcow2Cache::write(bool only_fresh) {
  std::vector<Table*> todo;
  for (const auto& [offset, table] : tables_)
    if (table->dirty && (table->fresh || !only_fresh)) todo.push_back(table.get());
  std::ranges::sort(todo, {}, &Table::offset);
  for (Table* const table : todo) {
    TRY(file_.write_bytes(table->bytes, table->offset));
    table->dirty = table->fresh = false;
    --dirty_;
  }
  return {};
}

}  // namespace smol::storage

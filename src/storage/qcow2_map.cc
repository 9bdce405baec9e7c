// From a place on the disk to a place in the file, and reading.
#include <algorithm>
#include <mutex>
#include <shared_mutex>

#include "storage/buffer_cursor.h"
#include "storage/qcow2.h"

namespace smol::storage {
namespace {

constexpr u64 kOffsetMask = 0x00fffffffffffe00;
constexpr u64 kCopied = u64{1} << 63;
constexpr u64 kCompressed = u64{1} << 62;
constexpr u64 kZero = 1;

}  // namespace

Result<Qcow2Disk::Entry> Qcow2Disk::decode(u64 raw, u64 guest_offset) const {
  if ((raw & kCompressed) != 0) return Entry{.kind = Kind::kCompressed, .raw = raw};
  const u64 known = kOffsetMask | kCopied | (header_.version >= 3 ? kZero : 0);
  const u64 host = raw & kOffsetMask;
  if ((raw & ~known) != 0 || host % header_.cluster_size() != 0)
    return fail("{}: the table entry for offset {:#x} of the disk is {:#x}, which is damaged",
                name(), guest_offset, raw);
  const Kind kind = (raw & kZero) != 0 ? Kind::kZero : host != 0 ? Kind::kData : Kind::kUnallocated;
  return Entry{.kind = kind, .host = host, .copied = (raw & kCopied) != 0, .raw = raw};
}

Result<u64> Qcow2Disk::l2_offset(u64 l1_index) const {
  if (l1_index >= l1_.size())
    return fail("{}: entry {} of the L1 table does not exist", name(), l1_index);
  return l1_[l1_index] & kOffsetMask;
}

Result<std::optional<Qcow2Disk::Extent>> Qcow2Disk::find_extent(u64 offset, u64 at_most) const {
  TRY_ASSIGN(const u64 table_offset, l2_offset(l1_index(offset)));
  if (table_offset == 0) {
    const u64 reach = header_.l2_reach() - offset % header_.l2_reach();
    return Extent{.entry = {}, .size = std::min(at_most, reach)};
  }
  const Table* const table = l2_.find(table_offset);
  if (table == nullptr) return std::nullopt;
  TRY_ASSIGN(const Entry first,
             decode(load_be64(table->bytes.data() + 8 * index_in_l2(offset)), offset));
  return extent_in(*table, (l1_[l1_index(offset)] & kCopied) != 0, offset, at_most, first);
}

Qcow2Disk::Extent Qcow2Disk::extent_in(const Table& table, bool l2_copied, u64 offset, u64 at_most,
                                       const Entry& first) const {
  const u64 cluster = header_.cluster_size();
  const u64 within = offset % cluster;
  Extent extent{.entry = first,
                .host = first.host + within,
                .size = cluster - within,
                .in_place = first.kind == Kind::kData && first.copied && l2_copied};
  if (first.kind != Kind::kCompressed) {
    for (u64 i = index_in_l2(offset) + 1; i < header_.l2_entries() && extent.size < at_most; ++i) {
      const auto next = decode(load_be64(table.bytes.data() + 8 * i), offset + extent.size);
      if (!next || next->kind != first.kind || next->copied != first.copied) break;
      if (first.kind == Kind::kData && next->host != extent.host + extent.size) break;
      extent.size += cluster;
    }
  }
  extent.size = std::min(extent.size, at_most);
  return extent;
}

Result<Qcow2Disk::Extent> Qcow2Disk::load_extent(u64 offset, u64 at_most) {
  TRY_ASSIGN(auto extent, find_extent(offset, at_most));
  if (extent) return *extent;
  TRY_ASSIGN(const u64 table, l2_offset(l1_index(offset)));
  TRY(l2_.load(table));
  TRY_ASSIGN(extent, find_extent(offset, at_most));
  return *extent;
}

// --- Reading ---

Result<> Qcow2Disk::read_backing(std::span<const iovec> buffers, u64 offset) {
  const u64 size = total_size(buffers);
  const u64 end = backing_ ? backing_->size() : 0;
  if (offset >= end) {
    fill_zero(buffers);
    return {};
  }
  if (size <= end - offset) return backing_->read(buffers, offset);
  BufferCursor cursor(buffers);
  std::vector<iovec> there, behind;
  cursor.take(end - offset, there);
  cursor.take(size - (end - offset), behind);
  fill_zero(behind);
  return backing_->read(there, offset);
}

Result<> Qcow2Disk::read_extent(const Extent& extent, u64 offset, std::span<const iovec> buffers) {
  switch (extent.entry.kind) {
    case Kind::kZero:
      fill_zero(buffers);
      return {};
    case Kind::kUnallocated:
      return read_backing(buffers, offset);
    case Kind::kCompressed:
      return decompressor_.read(extent.entry.raw, offset % header_.cluster_size(), buffers);
    case Kind::kData:
      return file_->read(buffers, extent.host, AtEnd::kZero);
  }
  return {};
}

Result<> Qcow2Disk::read(std::span<const iovec> buffers, u64 offset) {
  u64 left = total_size(buffers);
  TRY(check_range(*this, offset, left));
  BufferCursor cursor(buffers);
  std::vector<iovec> piece;
  while (left != 0) {
    piece.clear();
    u64 size = 0;
    {
      std::shared_lock lock(lock_);
      TRY_ASSIGN(const auto extent, find_extent(offset, left));
      if (extent) {
        size = extent->size;
        cursor.take(size, piece);
        TRY(read_extent(*extent, offset, piece));
      }
    }
    if (size == 0) {  // its table has to be loaded
      std::unique_lock lock(lock_);
      TRY_ASSIGN(const Extent extent, load_extent(offset, std::min(left, header_.cluster_size())));
      size = extent.size;
      cursor.take(size, piece);
      TRY(read_extent(extent, offset, piece));
    }
    offset += size;
    left -= size;
  }
  return {};
}

bool Qcow2Disk::try_read(std::span<const iovec> buffers, u64 offset) {
  u64 left = total_size(buffers);
  if (!check_range(*this, offset, left)) return false;
  std::shared_lock lock(lock_, std::try_to_lock);
  if (!lock) return false;
  BufferCursor cursor(buffers);
  std::vector<iovec> piece;
  while (left != 0) {
    const auto found = find_extent(offset, left);
    if (!found || !*found) return false;
    const Extent& extent = **found;
    piece.clear();
    cursor.take(extent.size, piece);
    const Kind kind = extent.entry.kind;
    if (kind == Kind::kZero || (kind == Kind::kUnallocated && !backing_)) {
      fill_zero(piece);
    } else if (kind == Kind::kData) {
      if (!file_->try_read(piece, extent.host)) return false;
    } else if (kind == Kind::kCompressed || !backing_->try_read(piece, offset)) {
      return false;
    }
    offset += extent.size;
    left -= extent.size;
  }
  return true;
}

Result<> Qcow2Disk::read_old(ByteSpan into, u64 offset) {
  while (!into.empty()) {
    if (offset >= header_.size) {
      std::memset(into.data(), 0, into.size());
      return {};
    }
    const u64 there = std::min<u64>(into.size(), header_.size - offset);
    TRY_ASSIGN(const Extent extent, load_extent(offset, there));
    const iovec piece{into.data(), extent.size};
    TRY(read_extent(extent, offset, {&piece, 1}));
    into = into.subspan(extent.size);
    offset += extent.size;
  }
  return {};
}

// --- Changing tables ---

void Qcow2Disk::set_entry(Table& table, u64 index, u64 raw) {
  store_be64(table.bytes.data() + 8 * index, raw);
  l2_.mark_dirty(table);
  dirty_ = true;
}

Result<Qcow2Disk::Table*> Qcow2Disk::writable_l2(u64 l1_index) {
  TRY_ASSIGN(const u64 old, l2_offset(l1_index));
  if (old != 0 && (l1_[l1_index] & kCopied) != 0) return l2_.load(old);
  std::vector<u8> entries(header_.cluster_size());
  if (old != 0) {
    TRY_ASSIGN(const Table* const shared, l2_.load(old));
    entries = shared->bytes;
    // A snapshot's table: what it refers to is not ours alone, whatever it says.
    for (u64 i = 0; i < header_.l2_entries(); ++i)
      entries[8 * i] = static_cast<u8>(entries[8 * i] & 0x7f);
  }
  TRY_ASSIGN(const Qcow2Refcounts::Run run, refcounts_.allocate(1));
  dirty_ = true;
  const u64 offset = run.first << header_.cluster_bits;
  // Written once already now, so that a full host is found here and not by the commit.
  if (const auto written = file_->write_bytes(entries, offset); !written) {
    TRY(refcounts_.take_back(run));
    return std::unexpected(written.error());
  }
  Table* const table = l2_.create(offset);
  table->bytes = std::move(entries);
  if (old != 0) {
    tables_.remove(old >> header_.cluster_bits);
    refcounts_.release_later(old >> header_.cluster_bits);
  }
  tables_.insert(run.first);
  l1_[l1_index] = offset | kCopied;
  changed_l1_.insert(l1_index);
  return table;
}

// What the entry referred to loses one reference.
Result<> Qcow2Disk::release(const Entry& entry) {
  if (entry.kind == Kind::kCompressed) {
    const auto place = compressed_place(entry.raw, header_.cluster_bits);
    const u64 last = (place.offset + place.size - 1) >> header_.cluster_bits;
    for (u64 at = place.offset >> header_.cluster_bits; at <= last; ++at)
      refcounts_.release_later(at);
  } else if (entry.host != 0) {
    TRY(check_not_table(entry.host, header_.cluster_size()));
    refcounts_.release_later(entry.host >> header_.cluster_bits);
  }
  dirty_ = true;
  return {};
}

}  // namespace smol::storage

// Writing, zeroing and discarding.
#include <algorithm>
#include <mutex>
#include <shared_mutex>

#include "storage/buffer_cursor.h"
#include "storage/qcow2.h"

namespace smol::storage {
namespace {

constexpr u64 kCopied = u64{1} << 63;
constexpr u64 kZeroFlag = 1;
constexpr u64 kMaxAtOnce = 4 * kMiB;  // bytes of new clusters in one turn under the lock

}  // namespace

Result<> Qcow2Disk::write(std::span<const iovec> buffers, u64 offset) {
  TRY(check_writable(*this));
  TRY(usable());
  u64 left = total_size(buffers);
  TRY(check_range(*this, offset, left));
  BufferCursor cursor(buffers);
  std::vector<iovec> piece;
  while (left != 0) {
    u64 size = 0;
    {
      std::shared_lock lock(lock_);
      TRY_ASSIGN(const auto extent, find_extent(offset, left));
      if (extent && may_write_in_place(*extent)) {
        size = extent->size;
        piece.clear();
        cursor.take(size, piece);
        TRY(file_->write(piece, extent->host));
      }
    }
    if (size == 0) {
      std::unique_lock lock(lock_);
      TRY_ASSIGN(size, write_new(cursor, offset, left));
    }
    offset += size;
    left -= size;
  }
  return {};
}

bool Qcow2Disk::may_write_in_place(const Extent& extent) const {
  const u64 first = extent.host >> header_.cluster_bits;
  const u64 last = (extent.host + extent.size - 1) >> header_.cluster_bits;
  return extent.in_place && !tables_.meets(first, last - first + 1);
}

bool Qcow2Disk::try_write(std::span<const iovec> buffers, u64 offset) {
  const u64 size = total_size(buffers);
  if (read_only() || !usable() || !check_range(*this, offset, size)) return false;
  std::shared_lock lock(lock_, std::try_to_lock);
  if (!lock) return false;
  const auto extent = find_extent(offset, size);
  return extent && *extent && (*extent)->size == size && may_write_in_place(**extent) &&
         file_->try_write(buffers, (*extent)->host);
}

// Writes at least something at offset, wherever it has to go; returns how much.
Result<u64> Qcow2Disk::write_new(BufferCursor& cursor, u64 offset, u64 left) {
  TRY(usable());
  TRY(commit_if_crowded());
  TRY_ASSIGN(Table* const table, writable_l2(l1_index(offset)));
  const u64 cluster = header_.cluster_size();
  const u64 index = index_in_l2(offset);
  TRY_ASSIGN(const Entry entry, decode(load_be64(table->bytes.data() + 8 * index), offset));
  if (entry.host != 0 && entry.copied)
    return write_reused(cursor, offset, left, *table, index, entry);

  // How many clusters from here on need a new place.
  const u64 wanted =
      std::min({left, kMaxAtOnce, (header_.l2_entries() - index) * cluster - offset % cluster});
  const u64 last = index_in_l2(offset + wanted - 1);
  u64 count = 1;
  std::vector<Entry> old{entry};
  for (; index + count <= last; ++count) {
    const auto next = decode(load_be64(table->bytes.data() + 8 * (index + count)), offset);
    if (!next || (next->host != 0 && next->copied)) break;
    old.push_back(*next);
  }
  TRY_ASSIGN(const Qcow2Refcounts::Run run, refcounts_.allocate(count));
  dirty_ = true;
  count = run.count;
  const u64 size = std::min(wanted, count * cluster - offset % cluster);
  const auto done = write_padded(cursor, offset, size, run.first << header_.cluster_bits);
  if (!done) {
    TRY(refcounts_.take_back(run));
    return std::unexpected(done.error());
  }
  for (u64 i = 0; i < count; ++i) {
    set_entry(*table, index + i, ((run.first + i) << header_.cluster_bits) | kCopied);
    TRY(release(old[i]));
  }
  return size;
}

// A cluster that is there and this image's alone: data, or one that reads as zeroes.
Result<u64> Qcow2Disk::write_reused(BufferCursor& cursor, u64 offset, u64 left, Table& table,
                                    u64 index, const Entry& entry) {
  const u64 cluster = header_.cluster_size();
  const u64 size = std::min(left, cluster - offset % cluster);
  TRY(check_not_table(entry.host, cluster));
  if (entry.kind == Kind::kData) {
    std::vector<iovec> piece;
    cursor.take(size, piece);
    TRY(file_->write(piece, entry.host + offset % cluster));
    return size;
  }
  TRY(write_padded(cursor, offset, size, entry.host));
  set_entry(table, index, entry.host | kCopied);
  return size;
}

// Writes the buffers with what the disk has around them, so that whole clusters at host are filled.
Result<> Qcow2Disk::write_padded(BufferCursor& cursor, u64 offset, u64 size, u64 host) {
  const u64 cluster = header_.cluster_size();
  const u64 head_size = offset % cluster;
  const u64 tail_size = base::align_up(offset + size, cluster) - (offset + size);
  std::vector<u8> head(head_size), tail(tail_size);
  TRY(read_old(head, offset - head_size));
  TRY(read_old(tail, offset + size));
  std::vector<iovec> pieces;
  // Behind the file's end there are zeroes already.
  const auto needed = [&](const std::vector<u8>& bytes) {
    return !bytes.empty() && (host < file_->size() || !file_->grows() ||
                              !std::ranges::all_of(bytes, [](u8 byte) { return byte == 0; }));
  };
  const bool with_head = needed(head);
  if (with_head) pieces.push_back({head.data(), head.size()});
  cursor.take(size, pieces);
  if (needed(tail)) pieces.push_back({tail.data(), tail.size()});
  return file_->write(pieces, host + (with_head ? 0 : head_size));
}

// --- Zeroes ---

Result<> Qcow2Disk::write_zeroes(u64 offset, u64 size, bool may_unmap) {
  TRY(check_writable(*this));
  TRY(check_range(*this, offset, size));
  std::unique_lock lock(lock_);
  TRY(usable());
  return zero_clusters(offset, size, may_unmap);
}

Result<> Qcow2Disk::zero_clusters(u64 offset, u64 size, bool may_unmap) {
  const u64 end = offset + size;
  const u64 cluster = header_.cluster_size();
  // The last cluster of the disk may be short: it is whole for this.
  const u64 first_whole = std::min(base::align_up(offset, cluster), end);
  const u64 last_whole =
      end == header_.size ? end : std::max(base::align_down(end, cluster), first_whole);
  TRY(write_zero_bytes(offset, first_whole - offset));
  for (u64 at = first_whole; at < last_whole;) {
    const u64 table_end =
        std::min(last_whole, base::align_down(at, header_.l2_reach()) + header_.l2_reach());
    TRY(zero_in_table(at, table_end, may_unmap));
    at = table_end;
  }
  return write_zero_bytes(last_whole, end - last_whole);
}

// Whole clusters of one L2 table.
Result<> Qcow2Disk::zero_in_table(u64 offset, u64 end, bool may_unmap) {
  TRY(commit_if_crowded());
  TRY_ASSIGN(const u64 old_table, l2_offset(l1_index(offset)));
  if (old_table == 0 && !backing_) return {};
  if (header_.version < 3 && (backing_ || !may_unmap))
    return write_zero_bytes(offset, end - offset);  // no entry says "zeroes"
  TRY_ASSIGN(Table* const table, writable_l2(l1_index(offset)));
  for (u64 at = offset; at < end; at += header_.cluster_size()) {
    const u64 index = index_in_l2(at);
    TRY_ASSIGN(const Entry entry, decode(load_be64(table->bytes.data() + 8 * index), at));
    if (entry.kind == Kind::kUnallocated && !backing_) continue;
    if (entry.kind == Kind::kZero && (entry.host == 0 || !may_unmap)) continue;
    if (!may_unmap && entry.kind == Kind::kData && entry.copied) {
      set_entry(*table, index, entry.raw | kZeroFlag);
      continue;
    }
    set_entry(*table, index, header_.version >= 3 ? kZeroFlag : 0);
    TRY(release(entry));
  }
  return {};
}

// Zeroes as data, where clusters do not read as zeroes anyway.
Result<> Qcow2Disk::write_zero_bytes(u64 offset, u64 size) {
  static const std::vector<u8> zeroes(64 * kKiB);
  while (size != 0) {
    TRY_ASSIGN(const Extent extent, load_extent(offset, std::min<u64>(size, zeroes.size())));
    const bool is_zero =
        extent.entry.kind == Kind::kZero ||
        (extent.entry.kind == Kind::kUnallocated && (!backing_ || offset >= backing_->size()));
    u64 done = extent.size;
    if (!is_zero) {
      const iovec piece{const_cast<u8*>(zeroes.data()), extent.size};
      BufferCursor cursor({&piece, 1});
      TRY_ASSIGN(done, write_new(cursor, offset, extent.size));
    }
    offset += done;
    size -= done;
  }
  return {};
}

// --- Discard ---

Result<> Qcow2Disk::discard(u64 offset, u64 size) {
  TRY(check_writable(*this));
  TRY(check_range(*this, offset, size));
  const u64 cluster = header_.cluster_size();
  const u64 first = base::align_up(offset, cluster);
  const u64 last =
      offset + size == this->size() ? offset + size : base::align_down(offset + size, cluster);
  std::unique_lock lock(lock_);
  TRY(usable());
  // Old versions have no entry that hides what the backing file has.
  if (header_.version < 3 && backing_) return {};
  for (u64 at = first; at < last;) {
    const u64 end = std::min(last, base::align_down(at, header_.l2_reach()) + header_.l2_reach());
    TRY_ASSIGN(const u64 table, l2_offset(l1_index(at)));
    if (table != 0) TRY(zero_in_table(at, end, true));
    at = end;
  }
  return {};
}

}  // namespace smol::storage

// See block_cache.h.
#include "cpu/interp/block_cache.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <new>
#include <utility>

#include "base/check.h"
#include "base/give_back.h"
#include "cpu/interp/exits.h"
#include "cpu/mmu/mmu.h"

namespace smol::cpu {

BlockCache::BlockCache(u64 arena_size) : arena_size_(arena_size) {
  void* const mapping = ::mmap(nullptr, arena_size_, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  CHECK(mapping != MAP_FAILED);
  arena_ = static_cast<u8*>(mapping);
  set_heads(kFewestHeads);
}

BlockCache::~BlockCache() { ::munmap(arena_, arena_size_); }

// Blocks that are in the table stay in it.
void BlockCache::set_heads(u32 count) {
  std::vector<Block*> old(count);
  old.swap(heads_);
  shift_ = 64 - static_cast<u32>(std::countr_zero(count));
  for (Block* block : old)
    while (block != nullptr) enter(std::exchange(block, block->next));
}

Block* BlockCache::allocate(u32 operations) {
  const u64 size = sizeof(Block) + operations * sizeof(Op);
  if (arena_size_ - used_ < size) return nullptr;
  Block* const block = new (arena_ + used_) Block{};
  block->op_count = operations;
  used_ += size;
  touched_ = std::max(touched_, used_);
  return block;
}

void BlockCache::mark(Page& page, u32 start, u32 end) {
  if (start == end) return;
  page.granules |= granules_of(start, end - start);
  for (u32 word = start >> 6; word <= (end - 1) >> 6; ++word) {
    const u32 low = std::max(start, word * 64) - word * 64,
              high = std::min(end, word * 64 + 64) - word * 64;
    page.bytes[word] |= (~u64{0} >> (64 - (high - low))) << low;
  }
}

bool BlockCache::any_marked(const Page& page, u32 offset, u64 size) {
  for (u32 word = offset >> 6; word <= (offset + size - 1) >> 6; ++word) {
    const u64 start = std::max<u64>(offset, u64{word} * 64) - u64{word} * 64;
    const u64 end = std::min<u64>(offset + size, u64{word} * 64 + 64) - u64{word} * 64;
    if (page.bytes[word] & ((~u64{0} >> (64 - (end - start))) << start)) return true;
  }
  return false;
}

void BlockCache::add_to_page(u64 page, Block* block, u32 start, u32 end,
                             std::vector<u64>& changed) {
  Page& entry = pages_[page];
  const u64 before = entry.granules;
  entry.parts.push_back({static_cast<u16>(start), static_cast<u16>(end), block});
  mark(entry, start, end);
  if (entry.granules != before) changed.push_back(page);
}

void BlockCache::insert(Block* block, std::vector<u64>& changed) {
  if (++blocks_ > heads_.size() && heads_.size() < kMostHeads)
    set_heads(static_cast<u32>(heads_.size()) * 4);
  enter(block);
  const u32 start = block->physical & 0xfff;
  add_to_page(block->physical & ~u64{0xfff}, block, start, start + block->bytes, changed);
  if (block->second_page != kNoPage)
    add_to_page(block->second_page, block, 0, block->second_bytes, changed);
}

void BlockCache::retire(Block* block) {
  if (block->stale) return;
  block->stale = true;
  for (Block** link = &heads_[hash(block->physical, block->mode)]; *link != nullptr;
       link = &(*link)->next) {
    if (*link == block) {
      *link = block->next;
      --blocks_;
      break;
    }
  }
  for (u32 i = 0; i < block->op_count; ++i) block->ops()[i].handler = stale_op;
}

void BlockCache::invalidate(u64 physical, u64 size, std::vector<u64>& changed) {
  while (size != 0) {
    const u64 page = physical & ~u64{0xfff};
    const u32 offset = physical & 0xfff;
    const u64 piece = std::min<u64>(size, 4096 - offset);
    physical += piece;
    size -= piece;
    const auto found = pages_.find(page);
    if (found == pages_.end() || !any_marked(found->second, offset, piece)) continue;
    Page& entry = found->second;
    changed.push_back(page);
    for (const Page::Part& part : entry.parts)
      if (offset < part.end && part.start < offset + piece) retire(part.block);
    // A split block may have been retired through its other page: its part here goes when this page
    // is next met.
    std::erase_if(entry.parts, [&](const Page::Part& part) {
      return offset < part.end && part.start < offset + piece;
    });
    if (entry.parts.empty()) {
      pages_.erase(found);
      continue;
    }
    entry.granules = 0;
    std::fill(std::begin(entry.bytes), std::end(entry.bytes), 0);
    for (const Page::Part& part : entry.parts) mark(entry, part.start, part.end);
  }
}

void BlockCache::clear(std::vector<u64>& pages) {
  for (const auto& [page, entry] : pages_) pages.push_back(page);
  pages_.clear();
  std::fill(heads_.begin(), heads_.end(), nullptr);
  blocks_ = 0;
  used_ = 0;
}

void BlockCache::trim(std::vector<u64>& pages) {
  clear(pages);
  std::unordered_map<u64, Page>().swap(pages_);
  set_heads(kFewestHeads);
  base::discard(arena_, base::align_up(std::exchange(touched_, 0), kPageSize));
}

}  // namespace smol::cpu

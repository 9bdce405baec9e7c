// See block_cache.h.
#include "cpu/interp/block_cache.h"

#include <sys/mman.h>

#include <algorithm>
#include <new>

#include "base/check.h"
#include "cpu/interp/exits.h"

namespace smol::cpu {

BlockCache::BlockCache() : heads_(kHeads, nullptr) {
  void* const mapping = ::mmap(nullptr, kArenaSize, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  CHECK(mapping != MAP_FAILED);
  arena_ = static_cast<u8*>(mapping);
}

BlockCache::~BlockCache() { ::munmap(arena_, kArenaSize); }

Block* BlockCache::allocate(u32 operations) {
  const u64 size = sizeof(Block) + operations * sizeof(Op);
  if (kArenaSize - used_ < size) return nullptr;
  Block* const block = new (arena_ + used_) Block{};
  block->op_count = operations;
  used_ += size;
  return block;
}

u32 BlockCache::granules_of(u32 offset, u64 size) {
  const u32 first = offset >> 7;
  const u32 last = static_cast<u32>(std::min<u64>(offset + size - 1, 4095) >> 7);
  return (~u32{0} >> (31 - (last - first))) << first;
}

u32 BlockCache::granules_of(const Block& block, u64 page) {
  u32 mask = 0;
  if ((block.physical & ~u64{0xfff}) == page)
    mask |= granules_of(block.physical & 0xfff, block.bytes);
  if (block.second_page == page) mask |= granules_of(0, block.second_bytes);
  return mask;
}

bool BlockCache::overlaps(const Block& block, u64 page, u32 offset, u64 size) {
  const u64 end = offset + size;
  if ((block.physical & ~u64{0xfff}) == page) {
    const u64 start = block.physical & 0xfff;
    if (offset < start + block.bytes && start < end) return true;
  }
  return block.second_page == page && offset < block.second_bytes;
}

void BlockCache::add_to_page(u64 page, Block* block, std::vector<u64>& new_pages) {
  Page& entry = pages_[page];
  if (entry.blocks.empty()) new_pages.push_back(page);
  entry.blocks.push_back(block);
  entry.granules |= granules_of(*block, page);
}

void BlockCache::insert(Block* block, std::vector<u64>& new_pages) {
  Block*& head = heads_[hash(block->physical, block->mode)];
  block->next = head;
  head = block;
  add_to_page(block->physical & ~u64{0xfff}, block, new_pages);
  if (block->second_page != kNoPage && block->second_page != (block->physical & ~u64{0xfff}))
    add_to_page(block->second_page, block, new_pages);
}

void BlockCache::retire(Block* block) {
  if (block->stale) return;
  block->stale = true;
  for (Block** link = &heads_[hash(block->physical, block->mode)]; *link != nullptr;
       link = &(*link)->next) {
    if (*link == block) {
      *link = block->next;
      break;
    }
  }
  for (u32 i = 0; i < block->op_count; ++i) block->ops()[i].handler = stale_op;
}

bool BlockCache::invalidate(u64 physical, u64 size, std::vector<u64>& empty_pages) {
  bool emptied = false;
  while (size != 0) {
    const u64 page = physical & ~u64{0xfff};
    const u32 offset = physical & 0xfff;
    const u64 piece = std::min<u64>(size, 4096 - offset);
    physical += piece;
    size -= piece;
    const auto found = pages_.find(page);
    if (found == pages_.end() || (found->second.granules & granules_of(offset, piece)) == 0)
      continue;
    Page& entry = found->second;
    for (Block* block : entry.blocks)
      if (overlaps(*block, page, offset, piece)) retire(block);
    std::erase_if(entry.blocks, [](const Block* block) { return block->stale; });
    entry.granules = 0;
    for (const Block* block : entry.blocks) entry.granules |= granules_of(*block, page);
    if (!entry.blocks.empty()) continue;
    pages_.erase(found);
    empty_pages.push_back(page);
    emptied = true;
  }
  return emptied;
}

void BlockCache::clear(std::vector<u64>& empty_pages) {
  for (const auto& [page, entry] : pages_) empty_pages.push_back(page);
  pages_.clear();
  std::fill(heads_.begin(), heads_.end(), nullptr);
  used_ = 0;
}

}  // namespace smol::cpu

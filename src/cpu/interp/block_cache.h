// Decoded code: blocks of operations keyed by guest-physical address and mode, and what has to
// happen to them when the bytes under them change.
//
// A block that is no longer true is not freed: every one of its operations is replaced by one that
// leaves the block, so links and jump-cache entries to it, and the block that is running now, all
// find their way out. Memory comes back when the arena is full and everything is dropped at once,
// and goes back to the host by trim(). Thread: the vCPU's.
#pragma once

#include <unordered_map>
#include <vector>

#include "cpu/interp/handler.h"

namespace smol::cpu {

inline constexpr u64 kNoPage = ~u64{0};

struct Block {
  u64 physical = 0;
  u64 second_page = kNoPage;  // of a split instruction: the guest-physical page of its second part
  u32 mode = 0;
  u32 bytes = 0;  // of code in the first page, and in the second one
  u32 second_bytes = 0;
  u32 op_count = 0;
  bool stale = false;
  Block* next = nullptr;  // in the hash chain
  Op* ops() { return reinterpret_cast<Op*>(this + 1); }
};
static_assert(sizeof(Block) % alignof(Op) == 0);

class BlockCache {
 public:
  static constexpr u64 kLargestArena = 96 * kMiB;

  // arena_size: bytes, room for some blocks at least. Only what is used is resident.
  explicit BlockCache(u64 arena_size);
  ~BlockCache();
  BlockCache(const BlockCache&) = delete;
  BlockCache& operator=(const BlockCache&) = delete;

  Block* find(u64 physical, u32 mode) const {
    for (Block* block = heads_[hash(physical, mode)]; block != nullptr; block = block->next)
      if (block->physical == physical && block->mode == mode) return block;
    return nullptr;
  }
  // Room for a block of that many operations; nullptr when the arena is full (clear() then).
  Block* allocate(u32 operations);
  // Enters the block allocated last. Gives the pages whose granules changed (0-2).
  void insert(Block* block, std::vector<u64>& changed);
  // Drops the blocks that hold one of the bytes. Gives the pages whose granules may have changed.
  void invalidate(u64 physical, u64 size, std::vector<u64>& changed);
  // The page's mask for Mmu::set_code_granules.
  u64 granules(u64 page) const {
    const auto found = pages_.find(page);
    return found == pages_.end() ? 0 : found->second.granules;
  }
  void clear(std::vector<u64>& pages);
  // clear(), and the memory goes back to the host.
  void trim(std::vector<u64>& pages);
  // What the blocks and the table of them take.
  u64 used_bytes() const { return used_ + heads_.size() * sizeof(Block*); }

 private:
  // The table of chains grows with the blocks: spread over a table for many, the few blocks of a
  // guest that idles would touch a page each.
  static constexpr u32 kFewestHeads = 1 << 10, kMostHeads = 1 << 18;
  struct Page {
    u64 granules = 0;
    u64 bytes[64] = {};  // bit i of word w: byte 64 w + i is in some block. Exact, so that data
                         // beside code costs no code
    struct Part {        // a block's bytes in this page
      u16 start, end;
      Block* block;
    };
    std::vector<Part> parts;
  };
  u32 hash(u64 physical, u32 mode) const {
    return static_cast<u32>((physical ^ (u64{mode} << 40)) * 0x9e3779b97f4a7c15 >> shift_);
  }
  void set_heads(u32 count);
  void enter(Block* block) {
    Block*& head = heads_[hash(block->physical, block->mode)];
    block->next = head;
    head = block;
  }
  static void mark(Page& page, u32 start, u32 end);
  static bool any_marked(const Page& page, u32 offset, u64 size);
  void retire(Block* block);
  void add_to_page(u64 page, Block* block, u32 start, u32 end, std::vector<u64>& changed);

  const u64 arena_size_;
  u8* arena_ = nullptr;
  u64 used_ = 0;
  u64 touched_ = 0;  // of the arena, since the last trim
  std::vector<Block*> heads_;
  u32 shift_ = 0;   // of a 64-bit product, to an index into heads_
  u32 blocks_ = 0;  // in the table
  std::unordered_map<u64, Page> pages_;
};

}  // namespace smol::cpu

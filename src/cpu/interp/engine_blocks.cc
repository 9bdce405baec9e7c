// How the engine finds the block at RIP, and makes one when there is none: translate, look up by
// physical address and mode, decode to the next unconditional branch or to the page's end, lower.
#include <algorithm>
#include <cstring>

#include "cpu/interp/engine_impl.h"
#include "cpu/interp/exits.h"

namespace smol::cpu {
namespace {

constexpr u32 kMaxConditionalJumps = 6;
constexpr u32 kLongestInstruction = 15;
constexpr u32 kMostBlockBytes = (kMaxBlockInstructions + 2) * kLongestInstruction;

}  // namespace

void EngineImpl::update_mode() {
  u32 mode = 0;
  const u32 code = cpu_.segments[kCs].access;
  if (cpu_.long_mode() && (code & kAccessLong)) {
    mode = kMode64 | kModeStackBig;
  } else {
    mode = (code & kAccessBig) ? kMode32 : kMode16;
    if (cpu_.segments[kSs].access & kAccessBig) mode |= kModeStackBig;
  }
  if (!cpu_.protected_mode()) mode |= kModeReal;
  if (cpu_.cpl == 3) mode |= kModeUser;
  if (cpu_.cr0 & (kCr0Em | kCr0Ts)) mode |= kModeFpuTrap;
  if ((cpu_.cr4 & kCr4Osfxsr) && !(cpu_.cr0 & kCr0Em)) mode |= kModeSse;
  const u64 base = (mode & kModeSizeMask) == kMode64 ? 0 : cpu_.segments[kCs].base;
  if (base != code_base_) ++jump_generations_[0], ++jump_generations_[1];
  code_base_ = base;
  mode_ = mode;
  set_jump_tag();
  if ((cpu_.flags & kFlagRf) && (cpu_.dr7 & 0xff) == 0) cpu_.flags &= ~kFlagRf;
}

BlockMode EngineImpl::block_mode(u32 mode) const {
  BlockMode out;
  out.code_size = (mode & kModeSizeMask) == kMode64   ? CodeSize::k64
                  : (mode & kModeSizeMask) == kMode32 ? CodeSize::k32
                                                      : CodeSize::k16;
  out.stack_big = (mode & kModeStackBig) != 0;
  out.real_mode = (mode & kModeReal) != 0;
  out.user = (mode & kModeUser) != 0;
  out.fpu_trap = (mode & kModeFpuTrap) != 0;
  out.sse_enabled = (mode & kModeSse) != 0;
  out.several = group_ != nullptr;
  out.features = features_;
  return out;
}

bool EngineImpl::second_page_matches(const Block& block, u64 linear) {
  CodeLocation second;
  if (!translate_code(&cpu_, (linear & ~u64{0xfff}) + kPageSize, second)) return false;
  return (second.physical & ~u64{0xfff}) == block.second_page;
}

// nullptr: a fault was recorded, or a stale lookup wants another round (kReload).
Block* EngineImpl::find_block(u32 mode) {
  const bool code64 = (mode & kModeSizeMask) == kMode64;
  if (!code64 && cpu_.rip > cpu_.segments[kCs].limit) {
    raise_gp0(cpu_);
    return nullptr;
  }
  const u64 linear = code64 ? cpu_.rip : (cpu_.rip + code_base_) & 0xffffffff;
  CodeLocation at;
  if (!translate_code(&cpu_, linear, at)) return nullptr;
  if (at.host == nullptr) {
    raise_gp0(cpu_);  // code in MMIO
    return nullptr;
  }
  Block* block = blocks_.find(at.physical, mode);
  if (block != nullptr && block->second_page != kNoPage && !second_page_matches(*block, linear)) {
    if (cpu_.stop != Stop::kNone) return nullptr;
    drop_code(block->physical, block->bytes);
    block = nullptr;
  }
  if (block == nullptr) block = build_block(linear, at, mode);
  if (block == nullptr) return nullptr;
  if (code64 && !(mode & kModeSingle)) {
    JumpEntry& entry = jump_cache_[jump_index(cpu_.rip)];
    entry = {.rip = cpu_.rip, .tag = cpu_.jump_tag, .op = block->ops()};
  }
  return block;
}

// The bytes of an instruction that goes on in the next page, at `next`.
bool EngineImpl::fetch_split(u64 linear, const CodeLocation& at, u8* bytes, CodeLocation& next) {
  const u32 here = kPageSize - static_cast<u32>(at.physical & 0xfff);
  if (!translate_code(&cpu_, linear + here, next)) return false;
  if (next.host == nullptr) return raise_gp0(cpu_);
  std::memcpy(bytes, at.host, here);
  std::memcpy(bytes + here, next.host, kLongestInstruction - here);
  return true;
}

// Among several CPUs, before what was decoded there is believed: from now on a store there by
// another one is seen, and tells this one. Granules that this one has published are so already.
void EngineImpl::publish_code(u64 page, u32 start, u32 end) {
  const u64 granules = granules_of(start, end - start);
  if ((blocks_.granules(page) & granules) == granules) return;
  static_cast<void>(memory_.watch_page(memory::GuestPhysical(page)));
  const u32 writers = mmu_.share_code_granules(page, granules);
  if (writers != 0) group_->withdraw_writers(*this, writers, page);
}

Block* EngineImpl::build_block(u64 linear, const CodeLocation& at, u32 mode) {
  const BlockMode block_mode_now = block_mode(mode);
  const DecodeMode decode_mode{.code_size = block_mode_now.code_size,
                               .features = features_,
                               .real_mode = block_mode_now.real_mode};
  static thread_local Decoded decoded[kMaxBlockInstructions];
  const u32 limit = (mode & kModeSingle) ? 1 : kMaxBlockInstructions;
  u32 offset = static_cast<u32>(at.physical & 0xfff);
  const u32 start = offset;
  // Other CPUs may write there meanwhile: what is decoded is then a copy, and compared in the end.
  u8 copy[kMostBlockBytes];
  const u8* code = at.host;
  if (group_ != nullptr) {
    std::memcpy(copy, at.host, std::min<u32>(kMostBlockBytes, kPageSize - start));
    code = copy;
  }
  CodeLocation second;
  u8 split[kLongestInstruction];
  u32 count = 0, jumps = 0, second_bytes = 0;
  u64 second_page = kNoPage;
  bool bad_length = false;
  while (count < limit && offset < kPageSize) {
    Decoded& next = decoded[count];
    const u32 available = std::min<u32>(kLongestInstruction + 1, kPageSize - offset);
    DecodeStatus status = decode(code + (offset - start), available, decode_mode, next.instruction);
    if (status == DecodeStatus::kNeedMore) {
      if (count > 0) break;  // a block of its own
      if (!fetch_split(linear, at, split, second)) return nullptr;
      second_page = second.physical & ~u64{0xfff};
      status = decode(split, kLongestInstruction, decode_mode, next.instruction);
      if (status != DecodeStatus::kOk) bad_length = true;
    }
    next.offset = static_cast<u16>(offset);
    if (bad_length || status == DecodeStatus::kTooLong) {
      bad_length = true;
      next.instruction = Instruction{};
      next.instruction.length = kLongestInstruction;
    }
    next.effects = flag_effects(next.instruction);
    ++count;
    offset += next.instruction.length;
    if (bad_length || second_page != kNoPage || ends_block(next.instruction)) break;
    if (next.instruction.opcode == Opcode::kJcc && ++jumps == kMaxConditionalJumps) break;
  }
  if (offset > kPageSize) second_bytes = offset - kPageSize;
  if (second_page == kNoPage) second_bytes = 0;
  const u32 bytes = std::min<u32>(offset, kPageSize) - start;
  if (group_ != nullptr) {
    publish_code(at.physical & ~u64{0xfff}, start, start + bytes);
    if (second_bytes != 0) publish_code(second_page, 0, second_bytes);
    std::atomic_thread_fence(std::memory_order_seq_cst);
    const u8* const first = second_page != kNoPage ? split : copy;
    if (std::memcmp(first, at.host, bytes) != 0 ||
        (second_bytes != 0 && std::memcmp(split + bytes, second.host, second_bytes) != 0)) {
      cpu_.stop = Stop::kReload;  // overtaken: once more
      return nullptr;
    }
  }

  Op ops[kMaxBlockInstructions + 1];
  const u32 op_count = lower_block(decoded, count, block_mode_now, ops);
  if (bad_length) ops[op_count - 1].handler = too_long;
  Block* block = blocks_.allocate(op_count);
  if (block == nullptr) {
    drop_all_blocks();
    block = blocks_.allocate(op_count);
  }
  block->physical = at.physical;
  block->mode = mode;
  block->bytes = bytes;
  block->second_page = second_page;
  block->second_bytes = second_bytes;
  std::copy(ops, ops + op_count, block->ops());
  insert_block(block);
  return block;
}

void EngineImpl::insert_block(Block* block) {
  pages_.clear();
  blocks_.insert(block, pages_);
  if (group_ != nullptr) return;  // published already
  for (const u64 code_page : pages_) {
    mmu_.set_code_granules(code_page, blocks_.granules(code_page));
    static_cast<void>(memory_.watch_page(
        memory::GuestPhysical(code_page)));  // false for ROM: nobody writes there
  }
}

}  // namespace smol::cpu

// String instructions. A repeated one is one instruction, however many elements it moves: it works
// by host pointers for as many elements as lie in the pages at hand, commits rSI, rDI and rCX after
// each such piece, and can be left and run again at any piece (fault, access for the outside,
// attention). Copies that overlap forward go element by element, because the architecture defines
// them that way.
#include <algorithm>
#include <cstring>

#include "cpu/interp/integer_common.h"

namespace smol::cpu {
namespace {

// What the address size makes of rCX, rSI, rDI.
u64 address_mask(const Op* op) {
  if (op->flags & kOpAddress16) return 0xffff;
  return (op->flags & kOpAddress32) ? 0xffffffff : ~u64{0};
}
void put_index(Cpu* cpu, u8 r, u64 value, u64 mask) {
  cpu->gpr[r] = mask == 0xffff ? (cpu->gpr[r] & ~mask) | (value & mask) : value & mask;
}

enum class Step : u8 { kDone, kAgain, kUnwind };

struct String {
  Cpu* cpu;
  const Op* op;
  u64 mask;
  bool repeated, backward;

  String(Cpu* c, const Op* o)
      : cpu(c),
        op(o),
        mask(address_mask(o)),
        repeated(o->aux != 0),
        backward((c->flags & kFlagDf) != 0) {}

  u64 count() const { return repeated ? cpu->gpr[kRcx] & mask : 1; }
  bool source(u32 size, u64& address) const {
    return linear_address(cpu, op, op->segment, cpu->gpr[kRsi] & mask, size, false, address);
  }
  bool destination(u32 size, bool write, u64& address) const {
    return linear_address(cpu, op, kEs, cpu->gpr[kRdi] & mask, size, write, address);
  }
  // Elements were done: moves the registers on. The I/O log starts anew, because they will not be
  // done again.
  void commit(u64 elements, u32 size, bool moves_source, bool moves_destination) const {
    const u64 by = backward ? u64{0} - elements * size : elements * size;
    if (moves_source) put_index(cpu, kRsi, cpu->gpr[kRsi] + by, mask);
    if (moves_destination) put_index(cpu, kRdi, cpu->gpr[kRdi] + by, mask);
    if (repeated) {
      put_index(cpu, kRcx, cpu->gpr[kRcx] - elements, mask);
      cpu->io.done_count = cpu->io.replayed = 0;
    }
  }
  // Elements from here to the end of the page that are wholly in it; 0 when even the first crosses.
  u64 in_page(u64 address, u32 size, u64 wanted) const {
    const u64 offset = address & 0xfff;
    const u64 room =
        backward ? (offset + size <= 4096 ? offset / size + 1 : 0) : (4096 - offset) / size;
    // Offsets that wrap at the address size, and legacy segments' limits, are left to single
    // elements.
    return (op->flags & kOpCode64) && mask == ~u64{0} ? std::min(room, wanted)
                                                      : std::min<u64>(room, 1);
  }
  // Something outside wants the CPU: leave between two pieces, to come back to the same
  // instruction.
  bool yield() const {
    if (!cpu->attention.load(std::memory_order_relaxed) || cpu->gpr[kRcx] == 0) return false;
    cpu->stop = Stop::kReload;
    return true;
  }
};

// Host pointer to the lowest byte of n elements at `address` (the first one done, which is the
// highest when backward).
u8* piece(const String& string, u64 address, u64 n, u32 size, Access access) {
  const u64 low = string.backward ? address - (n - 1) * size : address;
  return bulk_pointer(string.cpu, low, static_cast<u32>(n * size), access);
}

template <class T>
bool move_one(const String& string, u64 from, u64 to) {
  T value;
  return read_memory(string.cpu, from, value) && write_memory<T>(string.cpu, to, value);
}

template <class T>
Step move_piece(const String& string) {
  Cpu* const cpu = string.cpu;
  u64 from, to;
  const u64 count = string.count();
  if (count == 0) return Step::kDone;
  if (!string.source(sizeof(T), from) || !string.destination(sizeof(T), true, to))
    return Step::kUnwind;
  u64 n = std::min(string.in_page(from, sizeof(T), count), string.in_page(to, sizeof(T), count));
  if (n > 1 && !string.backward) {
    const u8* const source = piece(string, from, n, sizeof(T), Access::kRead);
    if (source == nullptr && cpu->stop != Stop::kNone) return Step::kUnwind;
    u8* const target =
        source == nullptr ? nullptr : piece(string, to, n, sizeof(T), Access::kWrite);
    if (target == nullptr && cpu->stop != Stop::kNone) return Step::kUnwind;
    if (target != nullptr) {
      if (target > source && target < source + n * sizeof(T)) {
        for (u64 i = 0; i < n; ++i)
          std::memcpy(target + i * sizeof(T), source + i * sizeof(T), sizeof(T));
      } else {
        std::memmove(target, source, n * sizeof(T));
      }
      finish_code_store(cpu);
      string.commit(n, sizeof(T), true, true);
      return string.count() == 0 || !string.repeated ? Step::kDone : Step::kAgain;
    }
  }
  if (!move_one<T>(string, from, to)) return Step::kUnwind;
  string.commit(1, sizeof(T), true, true);
  return string.repeated && string.count() != 0 ? Step::kAgain : Step::kDone;
}

template <class T>
Step store_piece(const String& string) {
  Cpu* const cpu = string.cpu;
  u64 to;
  const u64 count = string.count();
  if (count == 0) return Step::kDone;
  if (!string.destination(sizeof(T), true, to)) return Step::kUnwind;
  const T value = get<T>(cpu, kRax);
  const u64 n = string.in_page(to, sizeof(T), count);
  if (n > 1 && !string.backward) {  // backward by the element: a fault names the element
    u8* const target = piece(string, to, n, sizeof(T), Access::kWrite);
    if (target == nullptr && cpu->stop != Stop::kNone) return Step::kUnwind;
    if (target != nullptr) {
      if (sizeof(T) == 1 || value == 0) {
        std::memset(target, static_cast<u8>(value), n * sizeof(T));
      } else {
        for (u64 i = 0; i < n; ++i) std::memcpy(target + i * sizeof(T), &value, sizeof(T));
      }
      finish_code_store(cpu);
      string.commit(n, sizeof(T), false, true);
      return string.count() == 0 ? Step::kDone : Step::kAgain;
    }
  }
  if (!write_memory<T>(cpu, to, value)) return Step::kUnwind;
  string.commit(1, sizeof(T), false, true);
  return string.repeated && string.count() != 0 ? Step::kAgain : Step::kDone;
}

template <class T>
Step load_piece(const String& string) {
  u64 from;
  if (string.count() == 0) return Step::kDone;
  T value;
  if (!string.source(sizeof(T), from) || !read_memory(string.cpu, from, value))
    return Step::kUnwind;
  put<T>(string.cpu, kRax, value);
  string.commit(1, sizeof(T), true, false);
  return string.repeated && string.count() != 0 ? Step::kAgain : Step::kDone;
}

// SCAS and CMPS. aux: 1 = repeat while equal, 2 = repeat while not equal.
template <class T>
Step scan_piece(const String& string) {
  Cpu* const cpu = string.cpu;
  u64 at;
  const u64 count = string.count();
  if (count == 0) return Step::kDone;
  if (!string.destination(sizeof(T), false, at)) return Step::kUnwind;
  const T wanted = get<T>(cpu, kRax);
  const u64 n = string.in_page(at, sizeof(T), count);
  const u8* const bytes =
      n > 1 && !string.backward ? piece(string, at, n, sizeof(T), Access::kRead) : nullptr;
  if (bytes == nullptr && cpu->stop != Stop::kNone) return Step::kUnwind;
  T value;
  u64 done = 0;
  if (bytes != nullptr) {
    const bool until = string.op->aux == 2;
    do {
      std::memcpy(&value, bytes + done * sizeof(T), sizeof(T));
      ++done;
    } while (done < n && (value == wanted) != until);
  } else {
    if (!read_memory(cpu, at, value)) return Step::kUnwind;
    done = 1;
  }
  set_lazy<T>(cpu, kFlagsSub, static_cast<T>(wanted - value), value);
  string.commit(done, sizeof(T), false, true);
  const bool more =
      string.repeated && string.count() != 0 && (value == wanted) == (string.op->aux == 1);
  return more ? Step::kAgain : Step::kDone;
}

template <class T>
Step compare_piece(const String& string) {
  Cpu* const cpu = string.cpu;
  u64 left, right;
  const u64 count = string.count();
  if (count == 0) return Step::kDone;
  if (!string.source(sizeof(T), left) || !string.destination(sizeof(T), false, right))
    return Step::kUnwind;
  const u64 n =
      std::min(string.in_page(left, sizeof(T), count), string.in_page(right, sizeof(T), count));
  const u8 *a = nullptr, *b = nullptr;
  if (n > 1 && !string.backward) {
    a = piece(string, left, n, sizeof(T), Access::kRead);
    if (a == nullptr && cpu->stop != Stop::kNone) return Step::kUnwind;
    b = a == nullptr ? nullptr : piece(string, right, n, sizeof(T), Access::kRead);
    if (b == nullptr && cpu->stop != Stop::kNone) return Step::kUnwind;
  }
  T x, y;
  u64 done = 0;
  if (b != nullptr) {
    const bool until = string.op->aux == 2;
    do {
      std::memcpy(&x, a + done * sizeof(T), sizeof(T));
      std::memcpy(&y, b + done * sizeof(T), sizeof(T));
      ++done;
    } while (done < n && (x == y) != until);
  } else {
    if (!read_memory(cpu, left, x) || !read_memory(cpu, right, y)) return Step::kUnwind;
    done = 1;
  }
  set_lazy<T>(cpu, kFlagsSub, static_cast<T>(x - y), y);
  string.commit(done, sizeof(T), true, true);
  const bool more = string.repeated && string.count() != 0 && (x == y) == (string.op->aux == 1);
  return more ? Step::kAgain : Step::kDone;
}

template <Step (*kPiece)(const String&)>
SMOL_HANDLER(string_handler) {
  const String string(cpu, op);
  for (;;) {
    const Step step = kPiece(string);
    if (step == Step::kDone) SMOL_NEXT;
    if (step == Step::kUnwind || string.yield()) SMOL_UNWIND;
  }
}

}  // namespace

bool lower_string(const IntegerContext& context) {
  const Instruction& instruction = context.instruction;
  Op& op = context.out.op;
  op.segment = instruction.memory.segment;
  op.aux = instruction.repeat == RepeatPrefix::kNone  ? 0
           : instruction.repeat == RepeatPrefix::kRep ? 1
                                                      : 2;
  op.handler = by_width(instruction.operand_size, [&]<class T>(std::type_identity<T>) -> Handler {
    switch (instruction.opcode) {
      case Opcode::kMovs:
        return string_handler<move_piece<T>>;
      case Opcode::kStos:
        return string_handler<store_piece<T>>;
      case Opcode::kLods:
        return string_handler<load_piece<T>>;
      case Opcode::kScas:
        return string_handler<scan_piece<T>>;
      case Opcode::kCmps:
        return string_handler<compare_piece<T>>;
      default:
        return nullptr;
    }
  });
  return op.handler != nullptr;
}

}  // namespace smol::cpu

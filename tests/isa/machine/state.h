// User-mode state as the instruction tests see it, and the small world that test code runs in: one
// read-only code page, four data pages and a read-only one behind them, nothing else. The native
// runner and the interpreter's use the same addresses.
#pragma once

#include "base/bytes.h"

namespace smol::isa {

inline constexpr u64 kCodePage = 0x10000000;
inline constexpr u64 kData = 0x20000000;
inline constexpr u64 kWritablePages = 4;
inline constexpr u64 kDataPages = kWritablePages + 1;  // the last one is read-only
inline constexpr u64 kDataSize = kDataPages * kPageSize;
inline constexpr u64 kFsBase = kData + 0x840, kGsBase = kData + 0x1900;
inline constexpr u8 kFiller =
    0xcc;  // INT3: what the rest of the code page holds, so how a sequence ends

inline constexpr u16 kCode64 = 0x33,
                     kCode32 = 0x23;  // Linux's user code selectors; 0x2b is its data selector

struct UserState {
  u64 gpr[16] = {};
  u64 rip = kCodePage;
  u64 rflags = 0x202;
  alignas(16) u8 fx[512] = {};  // FXSAVE64 image; the pointers and FOP are not carried
  u64 cs = kCode64;             // kCode32: 32-bit compatibility mode, R8-R15 do not exist

  UserState() {
    base::store<u16>(fx, 0x37f);
    base::store<u32>(fx + 24, 0x1f80);
  }
  u8* st(unsigned i) { return fx + 32 + 16 * i; }  // ST(i), 10 bytes
  u8* xmm(unsigned i) { return fx + 160 + 16 * i; }
};

// How the code ended: always by an exception, INT3 where nothing went wrong.
struct Outcome {
  UserState state;
  u8 vector = 0xff;
  u32 error_code = 0;
  u64 address = 0;     // CR2 for #PF
  bool ended = false;  // false: ran too long, or the CPU shut down
};

}  // namespace smol::isa

#pragma once

#include "base/bytes.h"

using smol::i64;
using smol::u32;
using smol::u64;
using smol::u8;

// First argument: how much; second: guest-linear address of free RAM.
extern "C" {
u64 guest_fib(u64 n);
u64 guest_mix(u64 n);
u64 guest_sort(u64 n, u32* values);
u64 guest_sieve(u64 n, u8* bytes);
u64 guest_bytecode(u64 n, u8* code);
u64 guest_copy(u64 n, u8* bytes);
u64 guest_pages(u64 n, u8* bytes);
u64 guest_matrix(u64 n, u8* heap);
u64 guest_x87(u64 n, u8* heap);
u64 guest_search(u64 n, u8* heap);
extern const u8 __start_guest_loops[], __stop_guest_loops[];
}

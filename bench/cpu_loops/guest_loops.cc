// The guest's code: freestanding functions in one section of this program, copied into the guest's
// RAM as bytes. No constants in memory, no calls outside of the section, no SSE (see
// bench/cpu_loops/CMakeLists.txt).
#include "guest_loops.h"

#define GUEST extern "C" __attribute__((section("guest_loops"), noinline, used))

GUEST u64 guest_fib(u64 n) { return n < 2 ? n : guest_fib(n - 1) + guest_fib(n - 2); }

GUEST u64 guest_mix(u64 n) {
  u64 a = 0x9e3779b97f4a7c15, b = 1, c = 0;
  for (u64 i = 0; i < n; ++i) {
    a ^= a << 13;
    a ^= a >> 7;
    a ^= a << 17;
    b = b * 3 + (a & 0xff);
    if (b & 4)
      c += a;
    else
      c ^= b;
  }
  return a + b + c;
}

GUEST void guest_quick_sort(u32* values, i64 low, i64 high) {
  while (low < high) {
    const u32 pivot = values[(low + high) >> 1];
    i64 i = low, j = high;
    while (i <= j) {
      while (values[i] < pivot) ++i;
      while (values[j] > pivot) --j;
      if (i <= j) {
        const u32 t = values[i];
        values[i++] = values[j];
        values[j--] = t;
      }
    }
    guest_quick_sort(values, low, j);
    low = i;
  }
}

GUEST u64 guest_sort(u64 n, u32* values) {
  u32 seed = 12345;
  for (u64 i = 0; i < n; ++i) values[i] = seed = seed * 1103515245 + 12345;
  guest_quick_sort(values, 0, static_cast<i64>(n) - 1);
  return values[n / 2];
}

GUEST u64 guest_sieve(u64 n, u8* bytes) {
  for (u64 i = 0; i < n; ++i) bytes[i] = 1;
  u64 count = 0;
  for (u64 i = 2; i < n; ++i) {
    if (!bytes[i]) continue;
    ++count;
    for (u64 j = i * 2; j < n; j += i) bytes[j] = 0;
  }
  return count;
}

// A stack machine: op codes in memory, the loop and branches of an interpreter.
GUEST u64 guest_bytecode(u64 n, u8* code) {
  u64 stack[8];
  u64 accumulator = 0, counter = n, pc = 0;
  code[0] = 1, code[1] = 2, code[2] = 3, code[3] = 4, code[4] = 5;
  for (;;) {
    const u8 op = code[pc++];
    if (op == 1)
      stack[0] = accumulator;
    else if (op == 2)
      stack[1] = stack[0] * 5 + 1;
    else if (op == 3)
      accumulator ^= stack[1] >> 3;
    else if (op == 4)
      accumulator += counter;
    else {
      if (--counter == 0) return accumulator;
      pc = 0;
    }
  }
}

GUEST u64 guest_copy(u64 n, u8* bytes) {
  u64 repeat = n;
  while (repeat-- != 0) {
    u8 *to = bytes + 0x100000, *from = bytes;
    u64 count = 0x100000;
    asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
  }
  return 0;
}

// Linked words at a page's distance: TLB.
GUEST u64 guest_pages(u64 n, u8* bytes) {
  u64 sum = 0;
  for (u64 i = 0; i < n; ++i)
    sum += *reinterpret_cast<u64*>(bytes + ((i * 7) & 511) * 4096 + (i & 63) * 8);
  return sum;
}

// The guest's floating-point and SIMD code; like guest_loops.cc, but with SSE2 and x87. Constants
// come from integers, since the guest has no data but its heap.
#include <emmintrin.h>

#include "guest_loops.h"

#define GUEST extern "C" __attribute__((section("guest_loops"), noinline, used))

// Product of two n x n matrices of doubles, two columns at a time.
GUEST u64 guest_matrix(u64 n, u8* heap) {
  double* const a = reinterpret_cast<double*>(heap);
  double* const b = a + n * n;
  double* const c = b + n * n;
  for (u64 i = 0; i < n * n; ++i)
    a[i] = static_cast<double>(i % 7), b[i] = static_cast<double>(i % 11);
  for (u64 i = 0; i < n; ++i) {
    for (u64 j = 0; j < n; j += 2) {
      __m128d sum = _mm_setzero_pd();
      for (u64 k = 0; k < n; ++k)
        sum = _mm_add_pd(sum, _mm_mul_pd(_mm_set1_pd(a[i * n + k]), _mm_load_pd(b + k * n + j)));
      _mm_store_pd(c + i * n + j, sum);
    }
  }
  double total = 0;
  for (u64 i = 0; i < n * n; ++i) total += c[i];
  return static_cast<u64>(static_cast<i64>(total));
}

// A recurrence on 80-bit values.
GUEST u64 guest_x87(u64 n, u8* heap) {
  asm volatile("fninit");  // after reset every exception is unmasked
  volatile long long* const numbers = reinterpret_cast<volatile long long*>(heap);
  numbers[0] = 3;
  numbers[1] = 7;
  numbers[2] = 1000000;
  long double x = static_cast<long double>(numbers[0]);
  const long double y = static_cast<long double>(numbers[1]);
  for (u64 i = 0; i < n; ++i) {
    x = (x * y + y) / (x + y);
    x = x - y / (x * x);
  }
  const long double scale = static_cast<long double>(numbers[2]);
  return static_cast<u64>(static_cast<i64>(x * scale));
}

// strlen as C libraries do it: sixteen bytes at a time.
GUEST u64 guest_search(u64 n, u8* heap) {
  for (u64 i = 0; i < 4096; ++i) heap[i] = 'x';
  heap[4095] = 0;
  u64 total = 0;
  const __m128i zero = _mm_setzero_si128();
  for (u64 round = 0; round < n; ++round) {
    const u8* p = heap;
    u32 mask;
    while ((mask = static_cast<u32>(_mm_movemask_epi8(
                _mm_cmpeq_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)), zero)))) == 0)
      p += 16;
    total += static_cast<u64>(p - heap) + static_cast<u64>(__builtin_ctz(mask));
  }
  return total;
}

// Random numbers as they hurt: mostly edges, some noise. One generator for registers, memory and
// immediates.
#pragma once

#include "base/bytes.h"

namespace smol::isa {

// splitmix64: a seed fixes everything, on every host.
class Random {
 public:
  explicit Random(u64 seed) : state_(seed) {}
  u64 next() {
    u64 z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  u32 below(u32 n) { return static_cast<u32>((next() >> 32) * n >> 32); }
  bool percent(u32 p) { return below(100) < p; }

 private:
  u64 state_;
};

u64 random_integer(Random& random);
u32 random_float(Random& random);               // as bits
u64 random_double(Random& random);              // as bits
void random_float80(Random& random, u8* into);  // 10 bytes
// 16 bytes of integers, floats or doubles.
void random_vector(Random& random, u8* into);

}  // namespace smol::isa

#include "differential/values.h"

#include <iterator>

namespace smol::isa {

u64 random_integer(Random& random) {
  static constexpr u64 kEdges[] = {0,
                                   1,
                                   2,
                                   0x7f,
                                   0x80,
                                   0xff,
                                   0x7fff,
                                   0x8000,
                                   0xffff,
                                   0x7fffffff,
                                   0x80000000,
                                   0xffffffff,
                                   0x7fffffffffffffff,
                                   0x8000000000000000,
                                   0xffffffffffffffff,
                                   0xfffffffffffffffe};
  switch (random.below(5)) {
    case 0:
      return kEdges[random.below(std::size(kEdges))];
    case 1:
      return random.below(64);
    case 2:
      return random.next() >> random.below(64);
    case 3:
      return static_cast<u64>(-static_cast<i64>(random.below(256)));
    default:
      return random.next();
  }
}

u32 random_float(Random& random) {
  static constexpr u32 kEdges[] = {0,          0x80000000, 0x3f800000, 0xbf800000,
                                   0x7f800000, 0xff800000, 0x7fc00000, 0x7f800001,
                                   0xffc12345, 1,          0x007fffff, 0x00800000,
                                   0x7f7fffff, 0x4f000000, 0xcf000000, 0x3effffff};
  switch (random.below(4)) {
    case 0:
      return kEdges[random.below(std::size(kEdges))];
    case 1:
      return static_cast<u32>(random.next());
    default:  // near 1, so that sums and products are ordinary
      return (static_cast<u32>(random.next()) & 0x807fffff) | ((120 + random.below(24)) << 23);
  }
}

u64 random_double(Random& random) {
  static constexpr u64 kEdges[] = {0,
                                   0x8000000000000000,
                                   0x3ff0000000000000,
                                   0xbff0000000000000,
                                   0x7ff0000000000000,
                                   0xfff0000000000000,
                                   0x7ff8000000000000,
                                   0x7ff0000000000001,
                                   1,
                                   0x000fffffffffffff,
                                   0x0010000000000000,
                                   0x7fefffffffffffff,
                                   0x41e0000000000000,
                                   0xc3e0000000000000,
                                   0x3fdfffffffffffff,
                                   0x36a0000000000000};
  switch (random.below(4)) {
    case 0:
      return kEdges[random.below(std::size(kEdges))];
    case 1:
      return random.next();
    default:
      return (random.next() & 0x800fffffffffffff) | (u64{1000 + random.below(60)} << 52);
  }
}

void random_float80(Random& random, u8* into) {
  u64 significand = random.next() | u64{1} << 63;
  u16 exponent = static_cast<u16>(16370 + random.below(40));
  const u32 kind = random.below(12);
  if (kind == 0) significand = 0, exponent = 0;
  if (kind == 1) significand = u64{1} << 63, exponent = 0x7fff;
  if (kind == 2) exponent = 0x7fff;
  if (kind == 3) exponent = static_cast<u16>(random.next() & 0x7fff);
  if (kind == 4) exponent = 0;
  if (kind == 5) significand = random.next();
  if (kind >= 9) significand = u64{random.below(1000)} << 53 | u64{1} << 63;
  base::store<u64>(into, significand);
  base::store<u16>(into + 8, static_cast<u16>(exponent | (random.next() & 0x8000)));
}

void random_vector(Random& random, u8* into) {
  const u32 kind = random.below(4);
  for (u32 i = 0; i < 2; ++i) {
    if (kind == 0) base::store<u64>(into + 8 * i, random_double(random));
    if (kind == 1)
      base::store<u64>(into + 8 * i, random_float(random) | u64{random_float(random)} << 32);
    if (kind == 2) base::store<u64>(into + 8 * i, random_integer(random));
    if (kind == 3) base::store<u64>(into + 8 * i, random.next());
  }
}

}  // namespace smol::isa

// Integers, units and little-endian access. The guest and every format here are little-endian, and
// so is every host that is supported; load and store are memcpy, so alignment does not matter.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

namespace smol {

using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;
using i8 = std::int8_t;
using i16 = std::int16_t;
using i32 = std::int32_t;
using i64 = std::int64_t;
__extension__ typedef unsigned __int128 u128;
__extension__ typedef __int128 i128;

inline constexpr u64 kKiB = 1024;
inline constexpr u64 kMiB = 1024 * kKiB;
inline constexpr u64 kGiB = 1024 * kMiB;
inline constexpr u64 kPageSize = 4096;  // the guest's small page, bytes

static_assert(std::endian::native == std::endian::little);

using ByteSpan = std::span<u8>;
using ConstByteSpan = std::span<const u8>;

namespace base {

template <class T>
  requires std::is_trivially_copyable_v<T>
inline T load(const void* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

template <class T>
  requires std::is_trivially_copyable_v<T>
inline void store(void* to, T value) {
  std::memcpy(to, &value, sizeof(T));
}

// alignment: a power of two.
constexpr u64 align_down(u64 value, u64 alignment) { return value & ~(alignment - 1); }
constexpr u64 align_up(u64 value, u64 alignment) {
  return align_down(value + alignment - 1, alignment);
}

// A span over the bytes of a trivially copyable object.
template <class T>
ByteSpan bytes_of(T& object) {
  static_assert(std::is_trivially_copyable_v<T>);
  return {reinterpret_cast<u8*>(&object), sizeof(T)};
}
template <class T>
ConstByteSpan bytes_of(const T& object) {
  static_assert(std::is_trivially_copyable_v<T>);
  return {reinterpret_cast<const u8*>(&object), sizeof(T)};
}

}  // namespace base
}  // namespace smol

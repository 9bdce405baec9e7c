// Address types that do not mix: a guest-physical address is what devices and page tables hold, a
// guest-virtual (linear) one is what the guest's instructions compute. Host addresses are plain
// pointers.
#pragma once

#include <compare>

#include "base/bytes.h"

namespace smol::memory {

template <class Tag>
struct Address {
  u64 value = 0;

  constexpr Address() = default;
  constexpr explicit Address(u64 v) : value(v) {}
  constexpr auto operator<=>(const Address&) const = default;
  constexpr Address operator+(u64 offset) const { return Address(value + offset); }
  constexpr u64 operator-(Address other) const { return value - other.value; }
};

using GuestPhysical = Address<struct GuestPhysicalTag>;
using GuestVirtual = Address<struct GuestVirtualTag>;

}  // namespace smol::memory

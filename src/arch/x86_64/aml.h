// Builder of AML, the byte code in ACPI's DSDT: every function gives the bytes of one term, and
// terms nest by concatenation. Only the operators that our DSDT uses. Source: ACPI
// specification 6.5, chapter 20 (ACPI Machine Language), 6.4 (resource descriptors).
#pragma once

#include <initializer_list>
#include <string_view>
#include <vector>

#include "base/bytes.h"

namespace smol::arch::x86_64::aml {

using Bytes = std::vector<u8>;

// Concatenation.
Bytes join(std::initializer_list<Bytes> parts);

// A name string: optional leading '\', then segments of 1-4 characters (A-Z, 0-9, _) separated by
// '.'.
Bytes path(std::string_view text);
// The shortest encoding: ZeroOp, OneOp, or a byte, word, double or quad word constant.
Bytes integer(u64 value);
Bytes string(std::string_view text);  // ASCII without 0
// "PNP0501" packed into 32 bits, as _HID holds it.
Bytes eisa_id(std::string_view id);

Bytes name(std::string_view object, const Bytes& value);
Bytes scope(std::string_view where, const Bytes& terms);
Bytes device(std::string_view object, const Bytes& terms);
Bytes package(std::initializer_list<Bytes> elements);
Bytes method(std::string_view object, u8 arguments, const Bytes& terms);  // serialized

// An I/O port range as an operation region of this name, and one field of 8 bits at its start.
Bytes port_region(std::string_view region, u16 port, u8 size);
Bytes byte_field(std::string_view region, std::string_view field);

inline constexpr u8 kLocal0 = 0x60;
Bytes local0();
Bytes store(const Bytes& from, const Bytes& to);
Bytes bit_and(const Bytes& a, const Bytes& b);
Bytes if_true(const Bytes& condition, const Bytes& terms);
Bytes notify(std::string_view object, u8 value);

enum class Trigger { kLevel, kEdge };

// A buffer of resource descriptors, the end tag included: the value of a _CRS.
Bytes resources(std::initializer_list<Bytes> descriptors);
Bytes io_ports(u16 first, u8 count);
Bytes irq(u8 line);                          // ISA, edge, active high
Bytes interrupt(u32 line, Trigger trigger);  // extended: any line, active high, exclusive
Bytes memory32(u32 start, u32 size);
Bytes bus_numbers(u16 first, u16 count);
Bytes memory_window(u32 start, u32 size);  // that a host bridge hands on, not cacheable

}  // namespace smol::arch::x86_64::aml

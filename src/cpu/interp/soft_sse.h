// SSE floating point in integer arithmetic, exact in result and flags for every rounding mode, FTZ
// and DAZ: what handlers use on hosts that are not x86-64, and what tests compare with the host on
// those that are. Lanes beyond `lanes` are taken from the first operand, as the scalar forms do.
// flags: MXCSR's six, or'ed into. Source: SDM vol. 1, chapters 4.8, 11.5 and appendix E.
#pragma once

#include "cpu/interp/host_simd.h"

namespace smol::cpu::simd {

enum class SoftOp : u8 { kAdd, kSub, kMul, kDiv, kSqrt, kMin, kMax };

// T: u32 for binary32 lanes, u64 for binary64.
template <class T>
Vec soft_arith(SoftOp operation, u32 lanes, Vec a, Vec b, u32 mxcsr, u32& flags);
// ADDSUBPx: subtract in even lanes, add in odd ones. HADDPx / HSUBPx: neighbours of a, then of b.
template <class T>
Vec soft_addsub(Vec a, Vec b, u32 mxcsr, u32& flags);
template <class T>
Vec soft_horizontal(SoftOp operation, Vec a, Vec b, u32 mxcsr, u32& flags);
template <class T>
Vec soft_compare(u32 predicate, u32 lanes, Vec a, Vec b, u32 mxcsr, u32& flags);
// ZF PF CF as RFLAGS bits. quiet: UCOMISx (only signalling NaNs are invalid).
template <class T>
u32 soft_comi(bool quiet, Vec a, Vec b, u32 mxcsr, u32& flags);
// ROUNDxx; control as the instruction's immediate.
template <class T>
Vec soft_round(u32 control, u32 lanes, Vec a, Vec b, u32 mxcsr, u32& flags);
// DPPS and DPPD.
template <class T>
Vec soft_dot(u32 control, Vec a, Vec b, u32 mxcsr, u32& flags);

// One value to a signed integer of `bits` (32 or 64) bits; what does not fit gives the integer
// indefinite value.
template <class T>
u64 soft_to_integer(T value, u32 bits, bool truncate, u32 mxcsr, u32& flags);
template <class T>
T soft_from_integer(i64 value, u32 mxcsr, u32& flags);
u64 soft_widen(u32 value, u32 mxcsr, u32& flags);   // binary32 to binary64
u32 soft_narrow(u64 value, u32 mxcsr, u32& flags);  // binary64 to binary32

}  // namespace smol::cpu::simd

// Which compressed payloads this program can unpack. In a file of its own, because the five
// libraries weigh 200 KB: a program that is never given such a kernel defines decoder_for itself,
// and the linker leaves ours, and them, out.
#pragma once

#include "arch/x86_64/decompress.h"

namespace smol::arch::x86_64 {

// The whole stream to a buffer of the size that it should have; how many bytes came out.
using Decoder = Result<u64> (*)(ConstByteSpan in, ByteSpan out);

// nullptr: not supported.
Decoder decoder_for(Compression compression);

}  // namespace smol::arch::x86_64

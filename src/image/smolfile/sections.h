// The tables of a Smolfile, one function each; of this folder alone.
#pragma once

#include "image/smolfile/reader.h"

namespace smol::image {

inline constexpr u64 kMostCpus = 32, kMostMemoryMib = u64{1} << 24, kMostDiskGib = 8 * 1024;

// All tables but [build].
Result<> read_sections(const TableReader& top, Smolfile& file);
Result<> read_build(const TableReader& top, Smolfile& file);

}  // namespace smol::image

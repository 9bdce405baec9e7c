// Compressed clusters of a qcow2 image (QEMU, docs/interop/qcow2: "Compressed Clusters
// Descriptor"): raw deflate or zstd, read only.
#pragma once

#include <mutex>
#include <vector>

#include "storage/qcow2_header.h"

namespace smol::storage {

// Where a descriptor says that the data lies.
struct Qcow2CompressedPlace {
  u64 offset = 0;  // bytes in the file
  u64 size = 0;    // bytes, at most two clusters and a sector: the data and rubbish behind it
};
Qcow2CompressedPlace compressed_place(u64 l2_entry, u32 cluster_bits);

// Keeps the cluster that was unpacked last, as guests read it in pieces. Threads: any number.
class Qcow2Decompressor {
 public:
  Qcow2Decompressor(File& file, const Qcow2Header& header) : file_(file), header_(header) {}
  // Copies from the cluster at `within` bytes. Errors name the file and the place.
  Result<> read(u64 l2_entry, u64 within, std::span<const iovec> into);

 private:
  File& file_;
  const Qcow2Header& header_;
  std::mutex mutex_;  // guards what follows
  u64 entry_ = 0;     // whose cluster it is; 0: none
  std::vector<u8> cluster_;
};

}  // namespace smol::storage

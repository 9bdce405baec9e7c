// The configuration blob of a machine file in a registry: how its chunks become the file again.
// JSON; docs/formats/smolmachine.md, "In a registry".
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace smol::image {

inline constexpr std::string_view kMachineArtifactType = "application/vnd.smolvm.machine.v1";
inline constexpr std::string_view kMachineConfigType =
    "application/vnd.smolvm.machine.config.v1+json";
inline constexpr std::string_view kMachineChunkType =
    "application/vnd.smolvm.machine.chunk.v1+zstd";

struct ChunkIndex {
  static constexpr u32 kVersion = 1;
  static constexpr std::size_t kMaxText =
      96 * kMiB;  // a signed index of 64 MiB in base64, and the sizes
  static constexpr std::size_t kMaxChunks = 1 << 18;

  u64 size = 0;                 // of the file, bytes
  std::string digest;           // "sha256:..." of the file
  bool executable = false;      // a capsule
  std::vector<u64> chunks;      // bytes of each chunk, in the order of the manifest's layers
  std::string signature;        // the file's signature (minisign's text); empty: not signed
  std::string container_index;  // the bytes that it signs; empty: not signed

  std::string to_json() const;
  // Sizes that do not add up or are beyond kMaxChunk, unknown members, wrong types: errors.
  static Result<ChunkIndex> parse(std::string_view text);
};

}  // namespace smol::image

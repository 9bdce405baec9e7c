// The files of an image archive, front to back into the store: each becomes a blob under the digest
// that it has, and what the archive's own index says is looked up among these afterwards.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "image/oci/oci.h"
#include "image/tree/tar_reader.h"

namespace smol::image {

inline constexpr std::string_view kBlobFolder = "blobs/sha256/";

class Contents {
 public:
  struct Found {
    std::string digest;
    u64 size = 0;  // bytes
  };

  // name: for errors.
  Contents(const ImageStore& store, std::string name) : store_(store), name_(std::move(name)) {}

  // source: plain or compressed. total: its size for on_progress, 0: not known.
  Result<> read(std::unique_ptr<ByteSource> source, const OnProgress& on_progress, u64 total);
  // Digests of the blobs that were not in the store before.
  const std::vector<std::string>& added() const { return added_; }

  // Links inside the archive are followed.
  Result<const Found*> find(std::string_view path) const;
  bool has(std::string_view path) const { return find(path).has_value(); }
  Result<std::string> text(std::string_view path) const;

 private:
  Result<> take_file(TarReader& reader, const TarEntry& entry, const OnProgress& on_progress,
                     u64 total);

  const ImageStore& store_;
  const std::string name_;
  std::map<std::string, Found, std::less<>> files_;
  std::map<std::string, std::string, std::less<>> links_;
  std::vector<std::string> added_;
};

// Names without "./" and "..": "a/../b" is "b". Names that lead out are what is left of them.
std::string plain_name(std::string_view name);

}  // namespace smol::image

// Where the bytes of a tree's files are. A tree holds metadata only; file contents stay in files of
// the host (a spool that layers are unpacked into, a file below a directory, an image) and are read
// when they are needed.
#pragma once

#include <memory>
#include <string>

#include "base/bytes.h"
#include "base/fd.h"
#include "base/result.h"

namespace smol::image {

// Bytes by offset. Used by one thread at a time.
class DataSource {
 public:
  virtual ~DataSource() = default;
  // Fills `into` from `offset`, or fails and says which file was too short.
  virtual Result<> read(u64 offset, ByteSpan into) = 0;
};

// A range of an open file; name: for errors.
std::unique_ptr<DataSource> fd_source(base::UniqueFd fd, u64 offset, u64 size, std::string name);
// A file of the host, opened for each read, so that a tree of many files holds no descriptors.
std::unique_ptr<DataSource> path_source(std::string path);
// Bytes in memory: for small, made-up files.
std::unique_ptr<DataSource> memory_source(std::string bytes);

// A file without a name that takes file contents one after the other: gone when the process is,
// however it ends.
class Spool {
 public:
  // folder: where it takes its space; "": $TMPDIR, else /tmp.
  explicit Spool(std::string folder) : folder_(std::move(folder)) {}
  Spool(const Spool&) = delete;
  Spool& operator=(const Spool&) = delete;

  // Appends and gives the offset of the bytes. A full disk is an Error.
  Result<u64> append(ConstByteSpan bytes);
  Result<> read(u64 offset, ByteSpan into);
  u64 size() const { return size_; }

 private:
  Result<> create();

  std::string folder_;
  base::UniqueFd fd_;
  u64 size_ = 0;
};

}  // namespace smol::image

// A file that is under its name whole or not at all: written beside it, made durable, renamed. What
// had the name before stays until then, whatever fails.
#pragma once

#include <sys/types.h>

#include <string>

#include "base/fd.h"

namespace smol::base {

class NewFile {
 public:
  // Links in `path` are followed. What is there and no ordinary file (a pipe, a device) is written
  // to as it is, and never removed. mode: as of open(2), for a new file.
  static Result<NewFile> create(const std::string& path, mode_t mode = 0644);
  NewFile(NewFile&& other) noexcept;
  NewFile& operator=(NewFile&&) = delete;
  // Removes what was not kept.
  ~NewFile();

  // Open for reading and writing; what is no ordinary file for writing only.
  int fd() const { return fd_.get(); }
  // Where the bytes are until keep().
  const std::string& path() const { return beside_.empty() ? path_ : beside_; }
  Result<> keep();

 private:
  NewFile() = default;
  std::string path_, beside_;  // beside_ is empty: nothing to rename or remove
  UniqueFd fd_;
};

}  // namespace smol::base

// Initial root file systems for Linux: "newc" cpio archives
// (Documentation/driver-api/early-userspace/buffer-format.rst), made in memory from a directory of
// the host.
#pragma once

#include <string>
#include <vector>

#include "base/fd.h"

namespace smol::image {

// Appends entries to an archive that lies in a memory file, so that nothing is left behind on disk.
class CpioWriter {
 public:
  static Result<CpioWriter> create(const std::string& name);

  // Appends bytes as they are: a whole archive that was made elsewhere. The kernel reads archives
  // one after the other.
  Result<> append_archive(ConstByteSpan archive);
  // Every file, directory, symbolic link, device and FIFO below `directory` (which becomes "/"),
  // sorted by name, owners kept as numbers when running as root and 0 otherwise; hard links are
  // kept. Sockets are left out. Errors name the file.
  Result<> append_directory(const std::string& directory);
  // Ends the archive and gives the memory file, positioned at 0.
  Result<base::UniqueFd> finish() &&;

 private:
  explicit CpioWriter(base::UniqueFd fd) : fd_(std::move(fd)) {}
  struct Entry;
  Result<> append_tree(const std::string& host, const std::string& inside);
  Result<> append_file(const std::string& host, const Entry& entry);
  Result<> header(const Entry& entry);
  Result<> put(ConstByteSpan bytes);
  Result<> pad();

  base::UniqueFd fd_;
  u64 size_ = 0;
  u32 next_inode_ = 1;
  // (device, inode) -> our inode number and whether its data was written, for files with several
  // links.
  struct Link {
    u64 device = 0, inode = 0;
    u32 number = 0;
  };
  std::vector<Link> links_;
  bool owners_ = false;
};

}  // namespace smol::image

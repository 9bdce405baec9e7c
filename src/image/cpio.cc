// A directory becomes an initramfs: one header and the file's bytes for each entry, all padded to
// four bytes. newc is the only format that the kernel unpacks; a file is limited to 4 GiB by its 8
// hexadecimal digits, which is said.
#include "image/cpio.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>

#include "base/directory.h"

namespace smol::image {

struct CpioWriter::Entry {
  std::string name;
  struct stat status{};
  u32 inode = 0;
  u64 size = 0;
};

Result<CpioWriter> CpioWriter::create(const std::string& name) {
  TRY_ASSIGN(base::UniqueFd fd, base::create_memfd(name, 0));
  CpioWriter writer(std::move(fd));
  writer.owners_ = ::geteuid() == 0;
  return writer;
}

Result<> CpioWriter::put(ConstByteSpan bytes) {
  TRY(base::write_all_at(fd_.get(), bytes, size_, "the initial root file system"));
  size_ += bytes.size();
  return {};
}

Result<> CpioWriter::pad() {
  static constexpr u8 kZeros[4] = {};
  return put({kZeros, (4 - size_ % 4) % 4});
}

Result<> CpioWriter::append_archive(ConstByteSpan archive) {
  TRY(put(archive));
  return pad();
}

Result<> CpioWriter::header(const Entry& entry) {
  const auto& s = entry.status;
  const std::string text = fmt::format(
      "070701{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}",
      entry.inode, s.st_mode, owners_ ? s.st_uid : 0, owners_ ? s.st_gid : 0,
      S_ISDIR(s.st_mode) ? 2 : s.st_nlink, static_cast<u32>(s.st_mtime),
      static_cast<u32>(entry.size), 0, 0, major(s.st_rdev), minor(s.st_rdev), entry.name.size() + 1,
      0);
  TRY(put({reinterpret_cast<const u8*>(text.data()), text.size()}));
  TRY(put({reinterpret_cast<const u8*>(entry.name.c_str()), entry.name.size() + 1}));
  return pad();
}

Result<> CpioWriter::append_file(const std::string& host, const Entry& entry) {
  TRY_ASSIGN(const base::UniqueFd file, base::open_file(host, O_RDONLY | O_NOFOLLOW));
  TRY(header(entry));
  std::vector<u8> buffer(std::min<u64>(entry.size, 1 * kMiB));
  for (u64 done = 0; done < entry.size;) {
    const u64 part = std::min<u64>(buffer.size(), entry.size - done);
    TRY(base::read_exact_at(file.get(), {buffer.data(), part}, done, host));
    TRY(put({buffer.data(), part}));
    done += part;
  }
  return pad();
}

Result<> CpioWriter::append_tree(const std::string& host, const std::string& inside) {
  TRY_ASSIGN(const auto names, base::names_in(host));
  for (const std::string& name : names) {
    const std::string path = host + "/" + name;
    Entry entry{.name = inside.empty() ? name : inside + "/" + name};
    if (::lstat(path.c_str(), &entry.status) != 0) return fail_errno("cannot stat {}", path);
    const mode_t mode = entry.status.st_mode;
    if (S_ISSOCK(mode)) continue;
    entry.inode = next_inode_++;
    if (S_ISREG(mode)) {
      entry.size = static_cast<u64>(entry.status.st_size);
      if (entry.size > 0xffffffff)
        return fail("{} is over 4 GiB, too large for an initial root file system", path);
      if (entry.status.st_nlink > 1) {
        const auto known = std::find_if(links_.begin(), links_.end(), [&](const Link& link) {
          return link.device == entry.status.st_dev && link.inode == entry.status.st_ino;
        });
        if (known != links_.end()) {
          // A later name of a known file carries no data and the same inode number.
          entry.inode = known->number;
          entry.size = 0;
          TRY(header(entry));
          continue;
        }
        links_.push_back({entry.status.st_dev, entry.status.st_ino, entry.inode});
      }
      TRY(append_file(path, entry));
    } else if (S_ISLNK(mode)) {
      std::string target(static_cast<std::size_t>(entry.status.st_size) + 1, '\0');
      const ssize_t got = ::readlink(path.c_str(), target.data(), target.size());
      if (got < 0) return fail_errno("cannot read the link {}", path);
      target.resize(static_cast<std::size_t>(got));
      entry.size = target.size();
      TRY(header(entry));
      TRY(put({reinterpret_cast<const u8*>(target.data()), target.size()}));
      TRY(pad());
    } else {
      TRY(header(entry));
      if (S_ISDIR(mode)) TRY(append_tree(path, entry.name));
    }
  }
  return {};
}

Result<> CpioWriter::append_directory(const std::string& directory) {
  TRY(append_tree(directory, ""));
  Entry trailer{.name = "TRAILER!!!"};
  trailer.status.st_nlink = 1;
  return header(trailer);
}

Result<base::UniqueFd> CpioWriter::finish() && {
  if (::lseek(fd_.get(), 0, SEEK_SET) != 0)
    return fail_errno("cannot rewind the initial root file system");
  return std::move(fd_);
}

}  // namespace smol::image

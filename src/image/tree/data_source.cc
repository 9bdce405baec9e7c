// Contents by offset, from files of the host or memory.
#include "image/tree/data_source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

namespace smol::image {
namespace {

class FdSource final : public DataSource {
 public:
  FdSource(base::UniqueFd fd, u64 offset, u64 size, std::string name)
      : fd_(std::move(fd)), offset_(offset), size_(size), name_(std::move(name)) {}
  Result<> read(u64 offset, ByteSpan into) override {
    if (offset > size_ || into.size() > size_ - offset)
      return fail("{}: {} bytes at offset {} are outside of its {}", name_, into.size(), offset,
                  size_);
    return base::read_exact_at(fd_.get(), into, offset_ + offset, name_);
  }

 private:
  const base::UniqueFd fd_;
  const u64 offset_, size_;
  const std::string name_;
};

class PathSource final : public DataSource {
 public:
  explicit PathSource(std::string path) : path_(std::move(path)) {}
  Result<> read(u64 offset, ByteSpan into) override {
    TRY_ASSIGN(const base::UniqueFd fd, base::open_file(path_, O_RDONLY | O_NOFOLLOW | O_NONBLOCK));
    return base::read_exact_at(fd.get(), into, offset, path_);
  }

 private:
  const std::string path_;
};

class MemorySource final : public DataSource {
 public:
  explicit MemorySource(std::string bytes) : bytes_(std::move(bytes)) {}
  Result<> read(u64 offset, ByteSpan into) override {
    if (offset > bytes_.size() || into.size() > bytes_.size() - offset)
      return fail("{} bytes at offset {} are outside of {}", into.size(), offset, bytes_.size());
    if (!into.empty()) std::memcpy(into.data(), bytes_.data() + offset, into.size());
    return {};
  }

 private:
  const std::string bytes_;
};

}  // namespace

std::unique_ptr<DataSource> fd_source(base::UniqueFd fd, u64 offset, u64 size, std::string name) {
  return std::make_unique<FdSource>(std::move(fd), offset, size, std::move(name));
}

std::unique_ptr<DataSource> path_source(std::string path) {
  return std::make_unique<PathSource>(std::move(path));
}

std::unique_ptr<DataSource> memory_source(std::string bytes) {
  return std::make_unique<MemorySource>(std::move(bytes));
}

Result<> Spool::create() {
  if (folder_.empty()) {
    const char* const named = std::getenv("TMPDIR");
    folder_ = named != nullptr && *named != '\0' ? named : "/tmp";
  }
  fd_.reset(::open(folder_.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (fd_.valid()) return {};
  // A file system without O_TMPFILE: a name that goes at once.
  std::string name = folder_ + "/.smol-spool-XXXXXX";
  fd_.reset(::mkostemp(name.data(), O_CLOEXEC));
  if (!fd_.valid()) return fail_errno("cannot make a temporary file in {}", folder_);
  ::unlink(name.c_str());
  return {};
}

Result<u64> Spool::append(ConstByteSpan bytes) {
  if (!fd_.valid()) TRY(create());
  const u64 offset = size_;
  TRY(base::write_all_at(fd_.get(), bytes, offset, "a temporary file in " + folder_));
  size_ += bytes.size();
  return offset;
}

Result<> Spool::read(u64 offset, ByteSpan into) {
  if (offset > size_ || into.size() > size_ - offset)
    return fail("{} bytes at offset {} are outside of the spool's {}", into.size(), offset, size_);
  return base::read_exact_at(fd_.get(), into, offset, "a temporary file in " + folder_);
}

}  // namespace smol::image

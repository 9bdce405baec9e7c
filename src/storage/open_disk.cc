#include "storage/open_disk.h"

#include <sys/stat.h>

#include <algorithm>
#include <vector>

#include "storage/qcow2.h"
#include "storage/raw.h"

namespace smol::storage {
namespace {

struct Chain {
  const DiskOptions& options;
  std::vector<std::pair<u64, u64>> seen = {};  // files of the chain so far

  Result<std::unique_ptr<Disk>> open(const std::string& path, Access access, ImageType type);
  Result<std::unique_ptr<Disk>> open_qcow2(std::unique_ptr<File> file, bool probed);
  Result<std::unique_ptr<Disk>> open_backing(const std::string& above, const Qcow2Header& header);
  Result<> note(const std::string& path);
};

// Before the file is opened: its lock would find us ourselves.
Result<> Chain::note(const std::string& path) {
  struct stat status{};
  if (::stat(path.c_str(), &status) != 0) return {};  // opening it says why
  const std::pair<u64, u64> identity(status.st_dev, status.st_ino);
  if (std::ranges::find(seen, identity) != seen.end())
    return fail("the backing files of {} lead back to {}", options.path, path);
  seen.push_back(identity);
  return {};
}

Result<std::unique_ptr<Disk>> Chain::open(const std::string& path, Access access, ImageType type) {
  TRY(note(path));
  TRY_ASSIGN(auto file, HostFile::open(path, access, options.direct));
  const bool probed = type == ImageType::kAuto;
  if (probed) type = looks_like_qcow2(*file) ? ImageType::kQcow2 : ImageType::kRaw;
  if (type == ImageType::kQcow2) return open_qcow2(std::move(file), probed);
  return RawDisk::create(std::move(file), probed ? RawHeader::kGuarded : RawHeader::kFree);
}

Result<std::unique_ptr<Disk>> Chain::open_qcow2(std::unique_ptr<File> file, bool probed) {
  TRY_ASSIGN(const Qcow2Header header, Qcow2Header::read(*file));
  if (header.backing_name.empty()) return Qcow2Disk::open(std::move(file));
  if (probed)
    return fail(
        "{} looks like a qcow2 image over the backing file {}; say image_type=qcow2 when "
        "it is one, image_type=raw when its guest wrote that",
        file->path(), header.backing_name);
  if (!options.backing_files)
    return fail("{} lies over the backing file {}; allow that with backing_files=on", file->path(),
                header.backing_name);
  TRY_ASSIGN(auto backing, open_backing(file->path(), header));
  return Qcow2Disk::open(std::move(file), std::move(backing));
}

Result<std::unique_ptr<Disk>> Chain::open_backing(const std::string& above,
                                                  const Qcow2Header& header) {
  if (seen.size() > kMaxBackingFiles)
    return fail("{} lies over more than {} backing files", options.path, kMaxBackingFiles);
  std::string path = header.backing_name;
  if (path.starts_with("file:")) path.erase(0, 5);
  const std::size_t colon = path.find(':');
  if (colon != std::string::npos && path.find('/') > colon)
    return fail("{}: the backing file {} is not a plain file name, which is not supported", above,
                header.backing_name);
  const std::size_t slash = above.rfind('/');
  if (!path.starts_with('/') && slash != std::string::npos)
    path.insert(0, above.substr(0, slash + 1));
  ImageType type;
  if (header.backing_format == "raw" || header.backing_format == "file") {
    type = ImageType::kRaw;
  } else if (header.backing_format == "qcow2") {
    type = ImageType::kQcow2;
  } else {
    return fail(
        "{}: the backing file {} has {}; say raw or qcow2 (qemu-img rebase -u -b {} -F "
        "FORMAT {})",
        above, path,
        header.backing_format.empty() ? "no format named" : "the format " + header.backing_format,
        header.backing_name, above);
  }
  auto backing = open(path, Access::kReadOnly, type);
  if (!backing) return wrap(backing.error(), "cannot open the backing file of {}", above);
  return backing;
}

}  // namespace

Result<ImageType> parse_image_type(std::string_view name) {
  if (name == "auto") return ImageType::kAuto;
  if (name == "raw") return ImageType::kRaw;
  if (name == "qcow2") return ImageType::kQcow2;
  return fail("image_type={} is not supported (auto, raw and qcow2 are)", name);
}

Result<std::unique_ptr<Disk>> open_disk(const DiskOptions& options) {
  if (options.window) return RawDisk::create(std::make_unique<WindowFile>(*options.window));
  return Chain{.options = options}.open(options.path, options.access, options.type);
}

}  // namespace smol::storage

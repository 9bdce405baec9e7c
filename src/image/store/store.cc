#include "image/store/store.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "base/check.h"

namespace smol::image {
namespace {

constexpr std::size_t kHashBuffer = kMiB;

Result<> make_folder(const std::string& path) {
  if (::mkdir(path.c_str(), 0700) == 0 || errno == EEXIST) return {};
  return fail_errno("cannot create the folder {}", path);
}

Result<> make_folders(const std::string& path) {
  for (std::size_t at = path.find('/', 1); at != std::string::npos; at = path.find('/', at + 1)) {
    struct stat status{};
    const std::string part = path.substr(0, at);
    if (::stat(part.c_str(), &status) != 0) TRY(make_folder(part));
  }
  return make_folder(path);
}

Result<> sync_folder(const std::string& path) {
  TRY_ASSIGN(const base::UniqueFd fd, base::open_file(path, O_RDONLY | O_DIRECTORY));
  // Some file systems have no fsync for folders and say EINVAL.
  if (::fsync(fd.get()) != 0 && errno != EINVAL) return fail_errno("cannot make {} durable", path);
  return {};
}

Result<> lock_file(int fd, int operation, const std::string& path) {
  while (::flock(fd, operation) != 0)
    if (errno != EINTR) return fail_errno("cannot lock {}", path);
  return {};
}

// Whether the name still belongs to the open file (it may have been renamed or removed meanwhile).
bool is_still(int fd, const std::string& path) {
  struct stat open_status{}, named{};
  return ::fstat(fd, &open_status) == 0 && ::stat(path.c_str(), &named) == 0 &&
         open_status.st_dev == named.st_dev && open_status.st_ino == named.st_ino;
}

Result<> hash_prefix(int fd, u64 size, BlobHash& hash, const std::string& path) {
  std::vector<u8> buffer(std::min<u64>(size, kHashBuffer));
  for (u64 done = 0; done < size;) {
    const ByteSpan part(buffer.data(), std::min<u64>(buffer.size(), size - done));
    TRY(base::read_exact_at(fd, part, done, path));
    hash.update(ConstByteSpan(part));
    done += part.size();
  }
  return {};
}

}  // namespace

Result<> BlobWriter::append(ConstByteSpan bytes) {
  if (bytes.size() > size_ - offset_)
    return fail("blob {}: more than the {} bytes that were declared", digest_, size_);
  if (auto written = base::write_all_at(fd_.get(), bytes, offset_, path_); !written) {
    (void)restart();  // a full disk is not kept full by half a blob
    return written;
  }
  hash_.update(bytes);
  offset_ += bytes.size();
  return {};
}

Result<> BlobWriter::restart() {
  if (::ftruncate(fd_.get(), 0) != 0) return fail_errno("cannot empty {}", path_);
  offset_ = 0;
  hash_ = BlobHash();
  return {};
}

Result<> BlobWriter::commit() {
  if (offset_ != size_)
    return fail("blob {}: {} bytes came, {} were declared", digest_, offset_, size_);
  if (const std::string found = hash_.digest(); found != digest_) {
    TRY(restart());
    return fail("blob {}: what came has the digest {}", digest_, found);
  }
  return take_name();
}

Result<> BlobWriter::take_name() {
  if (::fsync(fd_.get()) != 0) return fail_errno("cannot make {} durable", path_);
  const std::string blobs = folder_ + "/blobs/sha256";
  const std::string target = blobs + "/" + digest_hex(digest_);
  if (::rename(path_.c_str(), target.c_str()) != 0)
    return fail_errno("cannot rename {} to {}", path_, target);
  TRY(sync_folder(blobs));
  fd_.reset();
  return {};
}

Result<std::string> BlobWriter::commit_as_found() {
  CHECK(unnamed_);
  digest_ = hash_.digest();
  TRY(take_name());
  return digest_;
}

BlobWriter::~BlobWriter() {
  if (unnamed_ && fd_.valid()) ::unlink(path_.c_str());
}

Result<ImageStore> ImageStore::open(std::string folder) {
  TRY(make_folders(folder));
  for (const char* const part : {"/blobs", "/blobs/sha256", "/partial", "/refs", "/roots"})
    TRY(make_folder(folder + part));
  return ImageStore(std::move(folder));
}

Result<base::UniqueFd> ImageStore::lock_for_adding() const {
  const std::string path = folder_ + "/lock";
  TRY_ASSIGN(base::UniqueFd fd, base::open_file(path, O_RDWR | O_CREAT, 0600));
  TRY(lock_file(fd.get(), LOCK_SH, path));
  return fd;
}

std::string ImageStore::blob_path(const std::string& digest) const {
  return folder_ + "/blobs/sha256/" + digest_hex(digest);
}

bool ImageStore::has_blob(const std::string& digest) const {
  return ::access(blob_path(digest).c_str(), R_OK) == 0;
}

Result<std::string> ImageStore::read_blob(const std::string& digest, u64 limit) const {
  const std::string path = blob_path(digest);
  TRY_ASSIGN(const base::UniqueFd fd, base::open_file(path, O_RDONLY));
  TRY_ASSIGN(const u64 size, base::file_size(fd.get(), path));
  if (size > limit) return fail("blob {}: {} bytes, more than {}", digest, size, limit);
  std::string bytes(size, '\0');
  TRY(base::read_exact_at(fd.get(), {reinterpret_cast<u8*>(bytes.data()), size}, 0, path));
  if (sha256_digest(bytes) != digest)
    return fail("{} is damaged: it does not have its digest; remove it and pull again", path);
  return bytes;
}

// The partial file, locked; its name may have gone to the complete blob while we waited.
Result<base::UniqueFd> ImageStore::open_partial(const std::string& digest) const {
  const std::string path = folder_ + "/partial/" + digest_hex(digest);
  for (;;) {
    TRY_ASSIGN(base::UniqueFd fd, base::open_file(path, O_RDWR | O_CREAT, 0600));
    TRY(lock_file(fd.get(), LOCK_EX, path));
    if (is_still(fd.get(), path)) return fd;
  }
}

Result<std::optional<BlobWriter>> ImageStore::write_blob(const std::string& digest,
                                                         u64 size) const {
  if (!is_digest(digest)) return fail("'{}' is no sha256 digest", digest);
  if (has_blob(digest)) return std::optional<BlobWriter>();
  BlobWriter writer;
  writer.path_ = folder_ + "/partial/" + digest_hex(digest);
  TRY_ASSIGN(writer.fd_, open_partial(digest));
  if (has_blob(digest)) {  // the one that we waited for has brought it
    ::unlink(writer.path_.c_str());
    return std::optional<BlobWriter>();
  }
  writer.folder_ = folder_;
  writer.digest_ = digest;
  writer.size_ = size;
  TRY_ASSIGN(const u64 there, base::file_size(writer.fd_.get(), writer.path_));
  if (there > size) {
    TRY(writer.restart());
  } else {
    TRY(hash_prefix(writer.fd_.get(), there, writer.hash_, writer.path_));
    writer.offset_ = there;
  }
  return std::optional<BlobWriter>(std::move(writer));
}

Result<BlobWriter> ImageStore::write_unnamed_blob(u64 limit) const {
  BlobWriter writer;
  writer.path_ = folder_ + "/partial/tmp-XXXXXX";
  writer.fd_.reset(::mkostemp(writer.path_.data(), O_CLOEXEC));
  if (!writer.fd_.valid()) return fail_errno("cannot create {}", writer.path_);
  TRY(lock_file(writer.fd_.get(), LOCK_EX, writer.path_));
  writer.unnamed_ = true;
  writer.folder_ = folder_;
  writer.size_ = limit;
  return writer;
}

Result<std::string> ImageStore::add_blob(std::string_view bytes) const {
  std::string digest = sha256_digest(bytes);
  TRY_ASSIGN(std::optional<BlobWriter> writer, write_blob(digest, bytes.size()));
  if (!writer) return digest;
  TRY(writer->restart());
  TRY(writer->append({reinterpret_cast<const u8*>(bytes.data()), bytes.size()}));
  TRY(writer->commit());
  return digest;
}

Result<> ImageStore::remove_blob(const std::string& digest) const {
  const std::string path = blob_path(digest);
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) return fail_errno("cannot remove {}", path);
  return {};
}

void ImageStore::drop_unneeded(base::UniqueFd adding_lock, const std::vector<std::string>& blobs,
                               Leftovers leftovers) const {
  // The shared lock becomes an exclusive one, or is given up: then prune does this one day.
  if (::flock(adding_lock.get(), LOCK_EX | LOCK_NB) != 0) return;
  auto records = list_images();
  if (!records) return;
  std::set<std::string> needed;
  for (const ImageRecord& record : *records)
    needed.insert(record.blobs.begin(), record.blobs.end());
  for (const std::string& blob : blobs) {
    if (needed.contains(blob)) continue;
    if (leftovers == Leftovers::kRemove) {
      (void)remove_blob(blob);
    } else {
      (void)::rename(blob_path(blob).c_str(), (scratch_folder() + "/" + digest_hex(blob)).c_str());
    }
  }
}

Result<> ImageStore::replace_file(const std::string& path, std::string_view bytes) const {
  std::string temporary = folder_ + "/partial/tmp-XXXXXX";
  const base::UniqueFd fd(::mkostemp(temporary.data(), O_CLOEXEC));
  if (!fd.valid()) return fail_errno("cannot create {}", temporary);
  // The lock says to prune that somebody is at it.
  TRY(lock_file(fd.get(), LOCK_EX, temporary));
  auto written = base::write_all(
      fd.get(), {reinterpret_cast<const u8*>(bytes.data()), bytes.size()}, temporary);
  if (written && ::fsync(fd.get()) != 0) written = fail_errno("cannot make {} durable", temporary);
  if (written && ::rename(temporary.c_str(), path.c_str()) != 0)
    written = fail_errno("cannot rename {} to {}", temporary, path);
  if (!written) {
    ::unlink(temporary.c_str());
    return written;
  }
  return sync_folder(path.substr(0, path.rfind('/')));
}

std::string chain_id(const std::vector<std::string>& diff_ids) {
  std::string chain;
  for (const std::string& diff_id : diff_ids)
    chain = chain.empty() ? diff_id : sha256_digest(chain + " " + diff_id);
  return chain;
}

}  // namespace smol::image

// Records of images: one small JSON file each, replaced as a whole. A record that cannot be read
// (of a newer version, damaged) is an Error that names the file: nothing is guessed and nothing
// removed.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/directory.h"
#include "image/store/store.h"

namespace smol::image {
namespace {

using nlohmann::json;

constexpr int kVersion = 1;

std::string to_text(const ImageRecord& record) {
  const json document = {{"version", kVersion},
                         {"reference", record.reference},
                         {"platform", record.platform},
                         {"manifest", record.manifest_digest},
                         {"config", record.config_digest},
                         {"blobs", record.blobs},
                         {"diff_ids", record.diff_ids},
                         {"size", record.size},
                         {"pulled_ms", record.pulled_ms},
                         {"stamp", record.stamp}};
  return document.dump(1, ' ', false, json::error_handler_t::replace) + "\n";
}

bool take(const json& document, const char* key, std::string& into) {
  const auto found = document.find(key);
  if (found == document.end() || !found->is_string()) return false;
  into = found->get_ref<const std::string&>();
  return true;
}

bool take(const json& document, const char* key, std::vector<std::string>& into) {
  const auto found = document.find(key);
  if (found == document.end() || !found->is_array()) return false;
  for (const json& item : *found) {
    if (!item.is_string() || !is_digest(item.get_ref<const std::string&>())) return false;
    into.push_back(item.get_ref<const std::string&>());
  }
  return true;
}

template <class Number>
bool take_number(const json& document, const char* key, Number& into) {
  const auto found = document.find(key);
  if (found == document.end() || !found->is_number_integer()) return false;
  into = found->get<Number>();
  return true;
}

Result<ImageRecord> parse_record(const std::string& text, const std::string& path) {
  const json document = json::parse(text, nullptr, false);
  int version = 0;
  if (!document.is_object() || !take_number(document, "version", version))
    return fail("{} is no image record", path);
  if (version != kVersion)
    return fail("{} was written by another version of this program (format {})", path, version);
  ImageRecord record;
  if (!take(document, "reference", record.reference) ||
      !take(document, "platform", record.platform) ||
      !take(document, "manifest", record.manifest_digest) ||
      !take(document, "config", record.config_digest) || !take(document, "blobs", record.blobs) ||
      !take(document, "diff_ids", record.diff_ids) || !take_number(document, "size", record.size) ||
      !take_number(document, "pulled_ms", record.pulled_ms) || !is_digest(record.manifest_digest) ||
      !is_digest(record.config_digest))
    return fail("{} is damaged: not all that an image record has", path);
  (void)take(document, "stamp", record.stamp);  // not in the first records
  return record;
}

// What is not there is removed by prune: so all of a folder's names, or an Error.
Result<std::vector<std::string>> names_in(const std::string& path) {
  TRY_ASSIGN(auto names, base::names_in(path));
  std::erase_if(names, [](const std::string& name) { return name[0] == '.'; });
  return names;
}

u64 bytes_on_disk(const std::string& path) {
  struct stat status{};
  return ::lstat(path.c_str(), &status) == 0 ? static_cast<u64>(status.st_blocks) * 512 : 0;
}

// Removes a file nobody has locked.
Result<bool> remove_unlocked(const std::string& path, bool dry_run, u64& bytes) {
  auto fd = base::open_file(path, O_RDONLY | O_NOFOLLOW);
  if (!fd) {
    if (fd.error().error_number() == ENOENT) return false;
    return std::unexpected(fd.error());
  }
  if (::flock(fd->get(), LOCK_EX | LOCK_NB) != 0) return false;
  bytes += bytes_on_disk(path);
  if (!dry_run && ::unlink(path.c_str()) != 0 && errno != ENOENT)
    return fail_errno("cannot remove {}", path);
  return true;
}

}  // namespace

std::string ImageStore::record_path(const std::string& reference,
                                    const std::string& platform) const {
  return folder_ + "/refs/" + digest_hex(sha256_digest(reference + "\n" + platform)) + ".json";
}

Result<> ImageStore::put_image(const ImageRecord& record) const {
  return replace_file(record_path(record.reference, record.platform), to_text(record));
}

Result<std::optional<ImageRecord>> ImageStore::find_image(const std::string& reference,
                                                          const std::string& platform) const {
  const std::string path = record_path(reference, platform);
  auto text = base::read_text_file(path);
  if (!text) {
    if (text.error().error_number() == ENOENT) return std::optional<ImageRecord>();
    return std::unexpected(text.error());
  }
  TRY_ASSIGN(ImageRecord record, parse_record(*text, path));
  return std::optional<ImageRecord>(std::move(record));
}

Result<std::vector<ImageRecord>> ImageStore::list_images() const {
  const std::string folder = folder_ + "/refs";
  TRY_ASSIGN(const std::vector<std::string> names, names_in(folder));
  std::vector<ImageRecord> records;
  for (const std::string& name : names) {
    if (!name.ends_with(".json")) continue;
    auto text = base::read_text_file(folder + "/" + name);
    if (!text && text.error().error_number() == ENOENT) continue;  // removed meanwhile
    if (!text) return std::unexpected(text.error());
    TRY_ASSIGN(ImageRecord record, parse_record(*text, folder + "/" + name));
    records.push_back(std::move(record));
  }
  std::ranges::sort(records, [](const ImageRecord& a, const ImageRecord& b) {
    return std::tie(a.reference, a.platform) < std::tie(b.reference, b.platform);
  });
  return records;
}

Result<bool> ImageStore::remove_image(const std::string& reference,
                                      const std::string& platform) const {
  const std::string path = record_path(reference, platform);
  if (::unlink(path.c_str()) == 0) return true;
  if (errno == ENOENT) return false;
  return fail_errno("cannot remove {}", path);
}

Result<> ImageStore::sweep_partials(const PruneOptions& options, Pruned& pruned) const {
  TRY_ASSIGN(const std::vector<std::string> names, names_in(scratch_folder()));
  for (const std::string& name : names)
    TRY(remove_unlocked(scratch_folder() + "/" + name, options.dry_run, pruned.bytes));
  return {};
}

Result<Pruned> ImageStore::prune(const PruneOptions& options) const {
  const std::string lock_path = folder_ + "/lock";
  TRY_ASSIGN(const base::UniqueFd lock, base::open_file(lock_path, O_RDWR | O_CREAT, 0600));
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK)
      return fail("an image is being fetched or unpacked: try again after that");
    return fail_errno("cannot lock {}", lock_path);
  }
  Pruned pruned;
  std::set<std::string> needed_blobs, needed_roots;
  TRY_ASSIGN(const std::vector<ImageRecord> records, list_images());
  for (const ImageRecord& record : records) {
    if (options.all && (!options.removable || options.removable(record))) {
      pruned.images.push_back(record.reference);
      if (!options.dry_run) TRY(remove_image(record.reference, record.platform));
      continue;
    }
    needed_blobs.insert(record.blobs.begin(), record.blobs.end());
    if (const std::string chain = chain_id(record.diff_ids); !chain.empty())
      needed_roots.insert(digest_hex(chain));
  }
  const std::string blobs = folder_ + "/blobs/sha256";
  TRY_ASSIGN(const std::vector<std::string> blob_names, names_in(blobs));
  for (const std::string& name : blob_names) {
    if (needed_blobs.contains("sha256:" + name)) continue;
    pruned.blobs.push_back("sha256:" + name);
    const u64 size = bytes_on_disk(blobs + "/" + name);
    pruned.sizes["sha256:" + name] = size;
    pruned.bytes += size;
    if (!options.dry_run && ::unlink((blobs + "/" + name).c_str()) != 0)
      return fail_errno("cannot remove {}/{}", blobs, name);
  }
  TRY_ASSIGN(const std::vector<std::string> root_names, names_in(roots_folder()));
  for (const std::string& name : root_names) {
    const std::string path = roots_folder() + "/" + name;
    if (needed_roots.contains(name.substr(0, name.find('.'))) ||
        options.roots_in_use.contains(path))
      continue;
    const u64 before = pruned.bytes;
    TRY_ASSIGN(const bool removed, remove_unlocked(path, options.dry_run, pruned.bytes));
    if (!removed) continue;
    pruned.roots.push_back(path);
    pruned.sizes[path] = pruned.bytes - before;
  }
  TRY(sweep_partials(options, pruned));
  return pruned;
}

}  // namespace smol::image

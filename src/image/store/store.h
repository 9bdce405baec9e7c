// What this host has of images: blobs by their digest, records of images by their names, and the
// read-only roots that were made of them.
//
//   <data folder>/images/
//     lock                    held shared by who adds, exclusively by who removes
//     blobs/sha256/HEX        complete and checked; never changed
//     partial/HEX             a download under way or broken off, to be resumed; locked by its
//     writer partial/tmp-XXXXXX      a file before it gets its name refs/HEX.json           one
//     image: HEX is the SHA-256 of reference and platform roots/HEX.erofs         a root; HEX is
//     its layers' chain ID (made and locked by image/oci/root.h)
//
// Choice: files that are renamed into place after fsync, and flock, instead of a database: a blob
// is there and right, or not there, whatever process is killed when and whatever the disk says; two
// processes that want the same blob wait for each other's lock, and the second one finds it done. A
// lock dies with its process. Removing (prune) takes the store's lock exclusively, so it never
// takes away what a pull has just brought and not yet recorded.
//
// An ImageStore is used by any number of threads at once (it holds nothing but its folder); a
// BlobWriter by one.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/fd.h"
#include "base/result.h"
#include "image/store/sha256.h"

namespace smol::image {

// One image under one name, for one platform.
struct ImageRecord {
  std::string reference;        // canonical: "docker.io/library/alpine:3.20"
  std::string platform;         // "linux/amd64", "linux/arm64/v8"
  std::string manifest_digest;  // of the platform's manifest
  std::string config_digest;
  std::vector<std::string> blobs;     // all that it needs: manifest, configuration, layers
  std::vector<std::string> diff_ids;  // of the layers, lowest first
  u64 size = 0;                       // of these blobs, bytes
  i64 pulled_ms = 0;                  // Unix time
  std::string
      stamp;  // of the file that it came from, to see that it is the same; "" for registries
};

// A blob being written. Gone without commit(): what has come so far stays for resuming.
class BlobWriter {
 public:
  BlobWriter(BlobWriter&&) noexcept = default;
  BlobWriter& operator=(BlobWriter&&) noexcept = default;

  // Bytes that are there already: those of an earlier, broken off writer and our own.
  u64 offset() const { return offset_; }
  // The file, for reading what has been written; this writer's.
  int fd() const { return fd_.get(); }
  // More bytes than `size` are an Error, and so is a full disk.
  Result<> append(ConstByteSpan bytes);
  // From the beginning again.
  Result<> restart();
  // Checks size and digest, makes the bytes durable and gives them their name. Wrong bytes are an
  // Error and are thrown away.
  Result<> commit();
  // Of a writer without a name: the digest is what it is. Gives it.
  Result<std::string> commit_as_found();
  ~BlobWriter();

 private:
  friend class ImageStore;
  BlobWriter() = default;
  Result<> take_name();

  base::UniqueFd fd_;
  std::string folder_, path_, digest_;
  u64 size_ = 0, offset_ = 0;
  bool unnamed_ = false;
  BlobHash hash_;
};

struct PruneOptions {
  bool all = false;      // images, too, not only what no image needs
  bool dry_run = false;  // only say what would go
  // Asked with all: false for an image that must stay (a machine was made from it).
  std::function<bool(const ImageRecord&)> removable;
  // Paths of roots that machines use.
  std::set<std::string> roots_in_use;
};
struct Pruned {
  std::vector<std::string> images;   // references
  std::vector<std::string> blobs;    // digests
  std::vector<std::string> roots;    // paths
  u64 bytes = 0;                     // given back, remains of downloads among it
  std::map<std::string, u64> sizes;  // of these blobs and roots: what each took of the disk
};

class ImageStore {
 public:
  // Folders are made where they are missing. folder: absolute, usually <data folder>/images.
  static Result<ImageStore> open(std::string folder);

  const std::string& folder() const { return folder_; }
  std::string roots_folder() const { return folder_ + "/roots"; }
  // For temporary files that are as large as images are.
  std::string scratch_folder() const { return folder_ + "/partial"; }

  // Held while blobs or roots are added, up to the record that needs them; waits for a prune.
  Result<base::UniqueFd> lock_for_adding() const;

  std::string blob_path(const std::string& digest) const;
  bool has_blob(const std::string& digest) const;
  // The blob's bytes, checked against its digest; more than `limit` is an Error.
  Result<std::string> read_blob(const std::string& digest, u64 limit) const;
  // nullopt: the blob is there (perhaps another process has just brought it: this call waits for
  // it). size: what the descriptor declares.
  Result<std::optional<BlobWriter>> write_blob(const std::string& digest, u64 size) const;
  // For bytes whose digest is not known before; at most `limit` of them. Not resumed: gone when the
  // writer is.
  Result<BlobWriter> write_unnamed_blob(u64 limit) const;
  // Small blobs in one piece; gives the digest.
  Result<std::string> add_blob(std::string_view bytes) const;
  Result<> remove_blob(const std::string& digest) const;
  // After adding has failed: removes those of `blobs` that no image needs, or makes them downloads
  // that can go on, unless somebody else is adding.
  enum class Leftovers { kRemove, kForResuming };
  void drop_unneeded(base::UniqueFd adding_lock, const std::vector<std::string>& blobs,
                     Leftovers leftovers = Leftovers::kRemove) const;

  // Replaces an older record of the same reference and platform.
  Result<> put_image(const ImageRecord& record) const;
  Result<std::optional<ImageRecord>> find_image(const std::string& reference,
                                                const std::string& platform) const;
  Result<std::vector<ImageRecord>> list_images() const;  // by reference, platform
  // The record only; prune takes the rest. false: there was none.
  Result<bool> remove_image(const std::string& reference, const std::string& platform) const;

  // Removes what nobody needs; an Error when something is being added right now.
  Result<Pruned> prune(const PruneOptions& options) const;

  // `bytes` under `path` (below this store) at once and durably.
  Result<> replace_file(const std::string& path, std::string_view bytes) const;

 private:
  explicit ImageStore(std::string folder) : folder_(std::move(folder)) {}
  std::string record_path(const std::string& reference, const std::string& platform) const;
  Result<base::UniqueFd> open_partial(const std::string& digest) const;
  Result<> sweep_partials(const PruneOptions& options, Pruned& pruned) const;

  std::string folder_;
};

// OCI image-spec v1.1, config.md "Layer ChainID": names what the layers make together. "" for none.
std::string chain_id(const std::vector<std::string>& diff_ids);

}  // namespace smol::image

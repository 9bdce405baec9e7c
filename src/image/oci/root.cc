#include "image/oci/root.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image/tree/erofs.h"
#include "image/tree/layer.h"

namespace smol::image {
namespace {

// Of what apply_layer and write_erofs make of the same layers: another number, another file.
constexpr int kFormat = 2;

std::string hex_of(const std::vector<std::string>& diff_ids) {
  const std::string chain = chain_id(diff_ids);
  return chain.empty() ? std::string(64, '0') : chain.substr(chain.find(':') + 1);
}

// The lock of everybody who makes this root; it goes with the descriptor.
Result<base::UniqueFd> lock_root(const std::string& path) {
  TRY_ASSIGN(base::UniqueFd fd, base::open_file(path, O_RDWR | O_CREAT, 0600));
  while (::flock(fd.get(), LOCK_EX) != 0)
    if (errno != EINTR) return fail_errno("cannot lock {}", path);
  return fd;
}

// A file that only has a name so that it can be given its last one; gone when that did not happen.
class NewFile {
 public:
  static Result<NewFile> create(const std::string& folder) {
    NewFile file;
    file.path_ = folder + "/tmp-root-XXXXXX";
    file.fd_.reset(::mkostemp(file.path_.data(), O_CLOEXEC));
    if (!file.fd_.valid()) return fail_errno("cannot create a file in {}", folder);
    // What nobody has locked is swept by prune.
    if (::flock(file.fd_.get(), LOCK_SH) != 0) return fail_errno("cannot lock {}", file.path_);
    return file;
  }
  NewFile(NewFile&& other) noexcept
      : path_(std::exchange(other.path_, "")), fd_(std::move(other.fd_)) {}
  ~NewFile() {
    if (!path_.empty()) ::unlink(path_.c_str());
  }

  int fd() const { return fd_.get(); }
  Result<> rename_to(const std::string& path) {
    if (::fchmod(fd_.get(), 0444) != 0 || ::fsync(fd_.get()) != 0)
      return fail_errno("cannot write {}", path);
    if (::rename(path_.c_str(), path.c_str()) != 0) return fail_errno("cannot create {}", path);
    path_.clear();
    const std::string folder = path.substr(0, path.rfind('/'));
    TRY_ASSIGN(const base::UniqueFd directory, base::open_file(folder, O_RDONLY | O_DIRECTORY));
    if (::fsync(directory.get()) != 0) return fail_errno("cannot make {} durable", path);
    return {};
  }

 private:
  NewFile() = default;
  std::string path_;
  base::UniqueFd fd_;
};

Result<> add_layer(Tree& tree, const Layer& layer) {
  const std::string name = "layer " + layer.digest;
  TRY_ASSIGN(const base::UniqueFd fd, base::open_file(layer.path, O_RDONLY));
  TRY_ASSIGN(auto bytes, decompressed(fd_bytes(fd.get(), name), name));
  TRY(apply_layer(tree, std::move(bytes), {.name = name, .diff_id = layer.diff_id, .limits = {}}));
  return {};
}

Result<> make_root(const ImageStore& store, const Image& image, const std::string& path,
                   const OnRootProgress& on_progress) {
  const auto tell = [&](std::size_t layer) {
    if (on_progress) on_progress({.layer = layer, .layers = image.layers.size()});
  };
  TRY_ASSIGN(Tree tree, load_tree(store, image, tell));
  tell(image.layers.size() + 1);
  TRY_ASSIGN(NewFile file, NewFile::create(store.scratch_folder()));
  TRY(write_erofs(tree, file.fd()));
  return file.rename_to(path);
}

}  // namespace

Result<Tree> load_tree(const ImageStore& store, const Image& image,
                       const std::function<void(std::size_t layer)>& tell) {
  Tree tree(store.scratch_folder());
  std::size_t number = 0;
  for (const Layer& layer : image.layers) {
    if (tell) tell(++number);
    TRY(add_layer(tree, layer));
  }
  return tree;
}

std::string root_path(const ImageStore& store, const std::vector<std::string>& diff_ids) {
  return fmt::format("{}/{}.{}.erofs", store.roots_folder(), hex_of(diff_ids), kFormat);
}

Result<std::string> ensure_root(const ImageStore& store, const Image& image,
                                const OnRootProgress& on_progress) {
  const std::string path = root_path(store, image.config.diff_ids);
  if (::access(path.c_str(), R_OK) == 0) return path;
  TRY_ASSIGN(const base::UniqueFd adding, store.lock_for_adding());
  TRY_ASSIGN(const base::UniqueFd lock, lock_root(fmt::format("{}/{}.lock", store.roots_folder(),
                                                              hex_of(image.config.diff_ids))));
  if (::access(path.c_str(), R_OK) == 0) return path;
  if (const auto made = make_root(store, image, path, on_progress); !made)
    return wrap(made.error(), "cannot unpack the image {}", image.reference);
  return path;
}

}  // namespace smol::image

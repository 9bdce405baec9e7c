#include "pack_base.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>

#include "base/new_file.h"
#include "default_image.h"
#include "image/container/digest.h"
#include "machines/boot_files.h"
#include "machines/data_dir.h"
#include "machines/monitor_process.h"

namespace smolvm {
namespace {

using namespace smol;

Result<> share(const std::string& folder, ConstByteSpan bytes) {
  const std::string path = fmt::format("{}/{}", folder, image::to_hex(image::digest_of(bytes)));
  if (::access(path.c_str(), R_OK) == 0) return {};
  TRY_ASSIGN(base::NewFile file, base::NewFile::create(path));
  TRY(base::write_all(file.fd(), bytes, file.path()));
  return file.keep();
}

Result<base::UniqueFd> in_memory(ConstByteSpan bytes, const char* what) {
  TRY_ASSIGN(base::UniqueFd file, base::create_memfd(what, 0));
  TRY(base::write_all(file.get(), bytes, what));
  return file;
}

}  // namespace

Result<std::string> packs_folder() {
  TRY_ASSIGN(const std::string data, machines::data_dir());
  const std::string folder = data + "/packs";
  TRY(machines::make_folders(folder));
  return folder;
}

Result<PackKernel> choose_kernel(const std::string& asked, u64 cpus) {
  if (asked == "micro" && cpus > 1)
    return fail("--cpus {}: the kernel 'micro' has 1 CPU; 'full' has more", cpus);
  if (!asked.empty() && asked != "micro" && asked != "full")
    return PackKernel{.path = asked, .kind = "other"};
  const std::string kind = !asked.empty() ? asked : cpus > 1 ? "full" : "micro";
  TRY_ASSIGN(const std::string path, machines::find_kernel(kind));
  return PackKernel{.path = path, .kind = kind};
}

Result<std::string> find_runtime() {
  std::string path;
  if (const char* const given = std::getenv("SMOL_CAPSULE"); given != nullptr) {
    path = given;
  } else {
    TRY_ASSIGN(const std::string folder, machines::program_folder());
    path = folder + "/smol-capsule";
  }
  if (::access(path.c_str(), X_OK) != 0)
    return fail_errno("the program that goes in front of packed machines is not there ({})", path);
  return path;
}

Result<> share_base(const std::string& kernel, ConstByteSpan init) {
  TRY_ASSIGN(const std::string folder, packs_folder());
  TRY_ASSIGN(const auto bytes, base::read_file(kernel));
  TRY(share(folder, bytes));
  return share(folder, init);
}

namespace {

// The installed init or kernel with that digest; nothing when there is none.
Result<std::optional<base::UniqueFd>> installed_part(const std::string& digest, const char* what) {
  if (image::to_hex(image::digest_of(init_image())) == digest) {
    TRY_ASSIGN(auto file, in_memory(init_image(), what));
    return std::optional(std::move(file));
  }
  for (const char* const name : {"micro", "full"}) {
    const auto installed = machines::find_kernel(name);
    if (!installed) continue;
    const auto bytes = base::read_file(*installed);
    if (!bytes || image::to_hex(image::digest_of(*bytes)) != digest) continue;
    TRY_ASSIGN(auto file, in_memory(*bytes, what));
    return std::optional(std::move(file));
  }
  return std::nullopt;
}

}  // namespace

Result<base::UniqueFd> shared_file(const std::string& pack, const std::string& digest,
                                   const char* what) {
  if (digest.size() != 2 * sizeof(image::Digest) ||
      digest.find_first_not_of("0123456789abcdef") != std::string::npos)
    return fail("{} names its {} by '{}', which is no digest", pack, what, digest);
  TRY_ASSIGN(const std::string data, machines::data_dir());
  const std::size_t slash = pack.rfind('/');
  const std::string places[] = {slash == std::string::npos ? "." : pack.substr(0, slash),
                                data + "/packs"};
  for (const std::string& place : places) {
    const std::string path = place + "/" + digest;
    if (::access(path.c_str(), F_OK) != 0) continue;
    TRY_ASSIGN(const auto bytes, base::read_file(path));
    if (const auto found = image::to_hex(image::digest_of(bytes)); found != digest)
      return fail("the {} of {} must have the digest {}, but {} has {}: it is damaged", what, pack,
                  digest, path, found);
    return in_memory(bytes, what);
  }
  TRY_ASSIGN(auto installed, installed_part(digest, what));
  if (installed) return std::move(*installed);
  return fail(
      "{} was split, and its {} with the digest {} is missing: looked for a file of that name "
      "in {} and {}, and at the installed ones",
      pack, what, digest, places[0], places[1]);
}

Result<std::optional<image::SecretKey>> signing_key(const Invocation& invocation) {
  if (!invocation.has("sign-key")) return std::optional<image::SecretKey>();
  TRY_ASSIGN(const std::string text, base::read_text_file(invocation.text("sign-key")));
  const char* const password = std::getenv("SMOLVM_KEY_PASSWORD");
  auto key = image::SecretKey::parse(
      text, password == nullptr ? std::nullopt : std::optional<std::string_view>(password));
  if (!key) return wrap(key.error(), "--sign-key {}", invocation.text("sign-key"));
  return std::optional(std::move(*key));
}

}  // namespace smolvm

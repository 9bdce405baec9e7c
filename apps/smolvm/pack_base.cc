#include "pack_base.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>

#include "default_image.h"
#include "image/container/digest.h"
#include "machines/boot_files.h"
#include "machines/data_dir.h"
#include "machines/monitor_process.h"

namespace smolvm {
namespace {

using namespace smol;

Result<std::string> shared_folder() {
  TRY_ASSIGN(const std::string data, machines::data_dir());
  return data + "/packs";
}

Result<> share(const std::string& folder, ConstByteSpan bytes) {
  const std::string path = fmt::format("{}/{}", folder, image::to_hex(image::digest_of(bytes)));
  if (::access(path.c_str(), R_OK) == 0) return {};
  const std::string beside = fmt::format("{}.{}.partial", path, ::getpid());
  TRY_ASSIGN(const base::UniqueFd file,
             base::open_file(beside, O_WRONLY | O_CREAT | O_TRUNC, 0644));
  if (const auto written = base::write_all(file.get(), bytes, beside); !written) {
    ::unlink(beside.c_str());
    return written;
  }
  if (::rename(beside.c_str(), path.c_str()) != 0) return fail_errno("cannot share {}", path);
  return {};
}

Result<base::UniqueFd> in_memory(ConstByteSpan bytes, const char* what) {
  TRY_ASSIGN(base::UniqueFd file, base::create_memfd(what, 0));
  TRY(base::write_all(file.get(), bytes, what));
  return file;
}

}  // namespace

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
  TRY_ASSIGN(const std::string folder, shared_folder());
  TRY(machines::make_folders(folder));
  TRY_ASSIGN(const auto bytes, base::read_file(kernel));
  TRY(share(folder, bytes));
  return share(folder, init);
}

Result<base::UniqueFd> shared_file(const std::string& digest, const char* what) {
  const auto matches = [&](ConstByteSpan bytes) {
    return image::to_hex(image::digest_of(bytes)) == digest;
  };
  if (digest.find_first_not_of("0123456789abcdef") != std::string::npos)
    return fail("the pack names its {} by '{}', which is no digest", what, digest);
  TRY_ASSIGN(const std::string folder, shared_folder());
  const std::string path = folder + "/" + digest;
  if (const auto bytes = base::read_file(path)) {
    if (!matches(*bytes)) return fail("{} is damaged: its bytes do not have that digest", path);
    return in_memory(*bytes, what);
  }
  if (matches(init_image())) return in_memory(init_image(), what);
  for (const char* const name : {"micro", "full"}) {
    const auto installed = machines::find_kernel(name);
    if (!installed) continue;
    if (const auto bytes = base::read_file(*installed); bytes && matches(*bytes))
      return in_memory(*bytes, what);
  }
  return fail("this pack was split, and its {} {} is neither in {} nor installed", what,
              digest.substr(0, 16), folder);
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

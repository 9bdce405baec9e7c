// -I, --rootfs and what a Smolfile names: to a root file system and a program.
#include "images.h"

#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "image/oci/root.h"
#include "machines/data_dir.h"
#include "options.h"
#include "progress.h"

namespace smolvm {
namespace {

using namespace smol;

Result<std::string> absolute(const std::string& path) {
  char resolved[PATH_MAX];
  if (::realpath(path.c_str(), resolved) == nullptr)
    return fail_errno("cannot use {} as a root file system", path);
  return std::string(resolved);
}

// `create` makes a machine that waits for `exec`, unless a program was asked for.
Result<std::size_t> set_program(const Invocation& invocation, const machines::ProgramChoice& choice,
                                const image::ImageConfig& config, machines::MachineSpec& spec) {
  const bool create = std::string_view(invocation.verb->path) == "machine create";
  spec.command.clear();
  if (create && !choice.explicit_program()) return std::size_t{0};
  spec.command = machines::program_words(choice, config.entrypoint, config.cmd);
  const bool console = invocation.has("initrd");  // has a program of its own
  if (!spec.image.empty() && spec.command.empty() && !console)
    return fail(
        "the image {} does not say what it runs: give a command behind --, or --entrypoint PROGRAM",
        spec.image);
  return std::min(choice.entrypoint.value_or(config.entrypoint).size(), spec.command.size());
}

// The root of an image, and what it says of the program.
Result<image::ImageConfig> use_image(const Invocation& invocation, const std::string& name,
                                     machines::MachineSpec& spec) {
  TRY_ASSIGN(const auto store, open_images());
  TRY_ASSIGN(auto image, bring_image(store, {.name = name,
                                             .platform = invocation.text("oci-platform"),
                                             .pull = invocation.text("pull")}));
  if (image.config.architecture != "amd64")
    return fail("the image {} is for {}: machines here are linux/amd64", image.reference,
                image.platform);
  TRY_ASSIGN(spec.rootfs, bring_root(store, image));
  spec.image = image.reference;
  spec.image_digest = image.manifest_digest;
  machines::apply_image(image.config, spec);
  return std::move(image.config);
}

}  // namespace

std::string transfer_text(const image::TransferProgress& now, const char* parts) {
  std::string text = fmt::format("{:.1f}", static_cast<double>(now.done) / kMegabyte);
  if (now.total > 0) text += fmt::format(" of {:.1f}", static_cast<double>(now.total) / kMegabyte);
  text += " MB";
  if (now.blobs > 0) text += fmt::format(", {} of {} {}", now.blobs_done, now.blobs, parts);
  return text;
}

Result<image::ImageStore> open_images() {
  TRY_ASSIGN(const std::string data, machines::data_dir());
  return image::ImageStore::open(data + "/images");
}

Result<image::Image> bring_image(const image::ImageStore& store, const ImageRequest& request) {
  const image::Source source = image::classify_source(request.name);
  image::PullOptions options;
  TRY_ASSIGN(options.platform, image::parse_platform(request.platform));
  TRY_ASSIGN(options.policy, image::parse_pull_policy(request.pull));
  const bool registry = source.kind == image::Source::Kind::kRegistry;
  if (registry && options.policy != image::PullPolicy::kAlways) {
    // The usual case reads no configuration and asks nobody.
    TRY_ASSIGN(const auto reference, image::parse_reference(source.text));
    TRY_ASSIGN(auto there, image::find_local(store, reference, options.platform));
    if (there) return std::move(*there);
  }
  if (registry) {
    TRY_ASSIGN(options.registry, image::RegistryOptions::of_host());
  }
  Progress progress(fmt::format("Fetching {}", request.name));
  options.on_progress = [&](const image::TransferProgress& now) {
    progress.detail(transfer_text(now, "parts"));
  };
  return image::pull(store, source, options);
}

Result<std::string> bring_root(const image::ImageStore& store, const image::Image& image) {
  const std::string path = image::root_path(store, image.config.diff_ids);
  if (::access(path.c_str(), R_OK) == 0) return path;
  Progress progress(fmt::format("Unpacking {}", image.reference));
  return image::ensure_root(store, image, [&](const image::RootProgress& now) {
    progress.detail(now.layer > now.layers ? std::string("writing the root file system")
                                           : fmt::format("layer {} of {}", now.layer, now.layers));
  });
}

Result<std::size_t> choose_root(const Invocation& invocation, machines::ProgramChoice choice,
                                machines::MachineSpec& spec) {
  if (invocation.has("image") && invocation.has("rootfs"))
    return fail("-I and --rootfs both name a root file system");
  choice.words = invocation.command;
  if (invocation.has("entrypoint")) {
    const std::string word = invocation.text("entrypoint");
    choice.entrypoint = word.empty() ? machines::Words{} : machines::Words{word};
    choice.command.reset();
  }
  const std::string image = invocation.text("image", spec.image);
  spec.image.clear();
  image::ImageConfig config;
  using Kind = image::Source::Kind;
  const auto source = image::classify_source(image);
  if (invocation.has("rootfs")) {
    TRY_ASSIGN(spec.rootfs, absolute(invocation.text("rootfs")));
  } else if (image.empty()) {
    // The embedded one.
  } else if (source.kind == Kind::kDirectory || source.kind == Kind::kFile) {
    TRY_ASSIGN(spec.rootfs, absolute(source.text));
  } else {
    TRY_ASSIGN(config, use_image(invocation, image, spec));
  }
  return set_program(invocation, choice, config, spec);
}

}  // namespace smolvm

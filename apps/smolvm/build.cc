// `build`: a Smolfile's image.
#include "build.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/new_file.h"
#include "build/builder.h"
#include "default_image.h"
#include "images.h"

namespace smolvm {
namespace {

using namespace smol;

// The read-only root as a file of its own.
Result<> copy_root(const image::ImageStore& store, const image::Image& image,
                   const std::string& path) {
  TRY_ASSIGN(const std::string root, bring_root(store, image));
  TRY_ASSIGN(const base::UniqueFd from, base::open_file(root, O_RDONLY));
  TRY_ASSIGN(base::NewFile to, base::NewFile::create(path));
  std::vector<u8> buffer(kMiB);
  for (;;) {
    const ssize_t got = ::read(from.get(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail_errno("cannot read {}", root);
    if (got == 0) return to.keep();
    TRY(base::write_all(to.fd(), ConstByteSpan(buffer).first(static_cast<std::size_t>(got)), path));
  }
}

}  // namespace

Result<image::Image> build_smolfile(const image::ImageStore& store, const BuildRequest& request) {
  TRY_ASSIGN(const auto chain, image::read_smolfile_chain(request.smolfile));
  TRY_ASSIGN(auto all, machines::Machines::open());
  build::BuildOptions options;
  options.name = request.name;
  options.cache = request.cache;
  options.start = {.image = default_image(), .init_image = init_image()};
  options.bring = [&](const std::string& name, const std::string& platform) {
    return bring_image(store, {.name = name, .platform = platform, .pull = {}});
  };
  if (!request.quiet)
    options.tell = [](const std::string& line) { fmt::print(stderr, "{}\n", line); };
  return build::build(store, all, chain, options);
}

Result<int> run_build(const Invocation& invocation) {
  const std::string output = invocation.text("output");
  TRY_ASSIGN(const auto store, open_images());
  TRY_ASSIGN(const auto image, build_smolfile(store, {.smolfile = invocation.text("smolfile", "."),
                                                      .name = invocation.text("tag"),
                                                      .cache = !invocation.has("no-cache")}));
  if (output.ends_with(".erofs")) {
    TRY(copy_root(store, image, output));
  } else if (!output.empty()) {
    TRY(build::write_archive(store, image, output));
  }
  fmt::print("{} {}\n", image.reference, image.manifest_digest);
  return 0;
}

}  // namespace smolvm

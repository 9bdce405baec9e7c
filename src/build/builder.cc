#include "build/builder.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cstdlib>

#include "base/new_file.h"
#include "build/copy_step.h"
#include "build/image_json.h"
#include "build/layer_tar.h"
#include "build/run_step.h"
#include "image/oci/root.h"
#include "image/tree/erofs.h"
#include "image/tree/host_directory.h"
#include "machines/data_dir.h"
#include "machines/smolfile_spec.h"

namespace smol::build {
namespace {

using image::BuildStep;
using image::Image;
using image::ImageStore;
using image::Smolfile;
using image::Tree;

// Of what steps make: another number, other keys.
constexpr int kCacheFormat = 1;
constexpr u64 kMostLayer = 64 * kGiB, kMostDocument = 4 * kMiB;

std::string time_text(i64 seconds) {
  const time_t value = static_cast<time_t>(seconds);
  tm parts{};
  ::gmtime_r(&value, &parts);
  char text[32];
  ::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

i64 epoch_of(const image::BuildPlan& plan) {
  if (plan.epoch != 0) return static_cast<i64>(plan.epoch);
  const char* const given = std::getenv("SOURCE_DATE_EPOCH");
  return given == nullptr ? 0 : std::max(0L, std::atol(given));
}

class Builder {
 public:
  Builder(const ImageStore& store, machines::Machines& all, const BuildOptions& options,
          const Smolfile& file, Image image)
      : store_(store),
        all_(all),
        options_(options),
        file_(file),
        plan_(*file.build),
        image_(std::move(image)),
        epoch_(epoch_of(plan_)) {}

  Result<Image> run() {
    if (const auto based = begin(); !based)
      return wrap(based.error(), "{}: the base", file_.at(plan_.place));
    std::size_t number = 0;
    for (const BuildStep& step : plan_.steps) {
      ++number;
      if (const auto done = do_step(step, number); !done)
        return wrap(done.error(), "{}: step {}", file_.at(step.place), number);
    }
    finish_config();
    return std::move(image_);
  }

 private:
  Result<> begin() {
    image::ImageConfig& config = image_.config;
    if (plan_.scratch || !plan_.rootfs.empty()) {
      image_ = Image{};
      config.os = "linux";
      config.architecture = "amd64";
    } else if (!plan_.base.empty()) {
      TRY_ASSIGN(image_, options_.bring(plan_.base, plan_.platform));
      if (config.architecture != "amd64")
        return fail("{} is for {}: machines here are linux/amd64", image_.reference,
                    image_.platform);
    }
    if (plan_.rootfs.empty()) return {};
    Tree tree(store_.scratch_folder());
    TRY(image::add_host_directory(tree, plan_.rootfs));
    return add_layer(tree);
  }

  void tell(std::size_t number, const std::string& what, bool cached = false) const {
    if (options_.tell)
      options_.tell(
          fmt::format("[{}/{}] {}{}", number, plan_.steps.size(), what, cached ? " (cached)" : ""));
  }

  Result<> do_step(const BuildStep& step, std::size_t number) {
    switch (step.kind) {
      case BuildStep::Kind::kEnv:
        machines::merge_environment(image_.config.env, step.env);
        return {};
      case BuildStep::Kind::kWorkdir:
        image_.config.working_dir = step.text;
        return {};
      case BuildStep::Kind::kUser:
        image_.config.user = step.text;
        return {};
      case BuildStep::Kind::kCopy:
        return copy(step, number);
      case BuildStep::Kind::kRun:
        return run_program(step, number);
    }
    return {};
  }

  // The tree so far, as the image that the machine's root is: only metadata is read.
  Result<Tree> current() {
    if (image_.layers.empty()) return Tree(store_.scratch_folder());
    TRY_ASSIGN(const std::string path, image::ensure_root(store_, image_));
    TRY_ASSIGN(const base::UniqueFd fd, base::open_file(path, O_RDONLY));
    struct stat status{};
    if (::fstat(fd.get(), &status) != 0) return fail_errno("cannot read {}", path);
    return image::read_erofs(fd.get(), 0, static_cast<u64>(status.st_size), path);
  }

  Result<> copy(const BuildStep& step, std::size_t number) {
    std::string what = "copy";
    for (const std::string& source : step.sources) what += " " + source;
    tell(number, what + " " + step.target);
    TRY_ASSIGN(const Tree base, current());
    const std::string& workdir = image_.config.working_dir;
    TRY_ASSIGN(const Tree layer, copy_layer({.file = file_,
                                             .base = base,
                                             .workdir = workdir.empty() ? "/" : workdir,
                                             .epoch = epoch_},
                                            step, store_.scratch_folder()));
    return add_layer(layer);
  }

  std::string key_of(const BuildStep& step) const {
    std::string text = fmt::format("run {}\n{}\n{}\n{}\n{}\n{}\n", kCacheFormat,
                                   image::chain_id(image_.config.diff_ids), epoch_, step.net,
                                   image_.config.working_dir, image_.config.user);
    const auto add = [&](const std::string& word) {
      text += fmt::format("{}:{}\n", word.size(), word);
    };
    for (const std::string& word : step.command) add(word);
    text += "env\n";
    for (const std::string& entry : image_.config.env) add(entry);
    return image::digest_hex(image::sha256_digest(text));
  }

  std::string cache_path(const std::string& key) const {
    return fmt::format("{}/build/{}", store_.folder(), key);
  }

  // The layer's digest, "none" for a step that wrote nothing, "" for a step that is not known.
  std::string cached(const std::string& key) const {
    if (!options_.cache) return "";
    auto text = base::read_text_file(cache_path(key));
    if (!text || !text->ends_with('\n')) return "";
    text->pop_back();
    if (*text == "none") return *text;
    return image::is_digest(*text) && store_.has_blob(*text) ? *text : "";
  }

  Result<> run_program(const BuildStep& step, std::size_t number) {
    if (image_.layers.empty())
      return fail("there is nothing to run: the root file system is empty");
    const std::string what =
        "run " +
        (step.command.size() == 3 && step.command[1] == "-c" ? step.command[2] : step.command[0]);
    const std::string key = key_of(step), known = cached(key);
    tell(number, what, !known.empty());
    if (known == "none") return {};
    if (!known.empty()) return use_layer(known);
    RunStep run;
    TRY_ASSIGN(run.root, image::ensure_root(store_, image_));
    run.command = step.command;
    run.environment = image_.config.env;
    run.environment.push_back(fmt::format("SOURCE_DATE_EPOCH={}", epoch_));
    run.directory = image_.config.working_dir;
    run.user = image_.config.user;
    run.net = step.net;
    run.cpus = plan_.cpus;
    run.memory_mib = plan_.memory_mib;
    run.spool_folder = store_.scratch_folder();
    run.start = options_.start;
    TRY_ASSIGN(const Tree layer, run_layer(all_, run));
    const std::size_t before = image_.layers.size();
    TRY(add_layer(layer));
    TRY(machines::make_folders(store_.folder() + "/build"));
    return store_.replace_file(
        cache_path(key),
        (image_.layers.size() == before ? "none" : image_.layers.back().digest) + "\n");
  }

  Result<> add_layer(const Tree& tree) {
    if (tree.node_count() <= 1) return {};
    TRY_ASSIGN(auto writer, store_.write_unnamed_blob(kMostLayer));
    TRY(write_tar(tree, epoch_, [&](ConstByteSpan bytes) { return writer.append(bytes); }));
    TRY_ASSIGN(const std::string digest, writer.commit_as_found());
    return use_layer(digest);
  }

  // A plain tar: its digest is its diff_id.
  Result<> use_layer(const std::string& digest) {
    struct stat status{};
    const std::string path = store_.blob_path(digest);
    if (::stat(path.c_str(), &status) != 0) return fail_errno("cannot read {}", path);
    image_.layers.push_back({.digest = digest,
                             .media_type = std::string(image::media::kOciLayer),
                             .size = static_cast<u64>(status.st_size),
                             .diff_id = digest,
                             .path = path});
    image_.config.diff_ids.push_back(digest);
    return {};
  }

  void finish_config() {
    image::ImageConfig& config = image_.config;
    machines::merge_environment(config.env, file_.env);
    if (file_.entrypoint) {
      config.entrypoint = *file_.entrypoint;
      config.cmd.clear();
    }
    if (file_.cmd) config.cmd = *file_.cmd;
    if (!file_.workdir.empty()) config.working_dir = file_.workdir;
    if (!file_.user.empty()) config.user = file_.user;
    if (!file_.stop_signal.empty()) config.stop_signal = file_.stop_signal;
    for (const auto& [key, value] : file_.labels) config.labels[key] = value;
    for (const std::string& port : file_.expose) config.exposed_ports.push_back(port);
    config.created = time_text(epoch_);
  }

  const ImageStore& store_;
  machines::Machines& all_;
  const BuildOptions& options_;
  const Smolfile& file_;
  const image::BuildPlan& plan_;
  Image image_;
  i64 epoch_;
};

// Configuration, manifest and the record that makes it an image of this store.
Result<Image> record(const ImageStore& store, Image image, const std::string& name) {
  if (image.layers.empty()) return fail("the build has no layers: nothing was copied or written");
  TRY_ASSIGN(const auto reference, image::parse_reference(name));
  const std::string config = config_json(image.config);
  TRY_ASSIGN(image.config_digest, store.add_blob(config));
  image::Manifest manifest;
  manifest.media_type = image::media::kOciManifest;
  manifest.config = {.media_type = std::string(image::media::kOciConfig),
                     .digest = image.config_digest,
                     .size = config.size(),
                     .annotations = {},
                     .platform = {}};
  image::ImageRecord entry;
  image.size = config.size();
  for (const auto& layer : image.layers) {
    manifest.layers.push_back({.media_type = layer.media_type,
                               .digest = layer.digest,
                               .size = layer.size,
                               .annotations = {},
                               .platform = {}});
    entry.blobs.push_back(layer.digest);
    image.size += layer.size;
  }
  const std::string text = image::to_json(manifest);
  TRY_ASSIGN(image.manifest_digest, store.add_blob(text));
  image.size += text.size();
  image.reference = reference.canonical();
  image.platform = "linux/amd64";
  entry.blobs.push_back(image.config_digest);
  entry.blobs.push_back(image.manifest_digest);
  entry.reference = image.reference;
  entry.platform = image.platform;
  entry.manifest_digest = image.manifest_digest;
  entry.config_digest = image.config_digest;
  entry.diff_ids = image.config.diff_ids;
  entry.size = image.size;
  entry.pulled_ms = machines::unix_time_ms();
  TRY(store.put_image(entry));
  return image;
}

}  // namespace

Result<Image> build(const ImageStore& store, machines::Machines& all,
                    const std::vector<Smolfile>& chain, const BuildOptions& options) {
  const Smolfile& last = chain.back();
  if (!last.build) return fail("{}: it has no [build]", last.path);
  const std::string name = options.name.empty() ? last.image : options.name;
  if (name.empty()) return fail("{}: the result needs a name: `image` there, or -t", last.path);
  TRY(image::parse_reference(name));
  TRY_ASSIGN(const base::UniqueFd lock, store.lock_for_adding());
  Image image;
  for (const Smolfile& file : chain) {
    TRY_ASSIGN(image, Builder(store, all, options, file, std::move(image)).run());
  }
  return record(store, std::move(image), name);
}

Result<> write_archive(const ImageStore& store, const Image& image, const std::string& path) {
  Tree tree(store.scratch_folder());
  TRY(tree.add_file("oci-layout", R"({"imageLayoutVersion":"1.0.0"})"));
  TRY_ASSIGN(const std::string manifest, store.read_blob(image.manifest_digest, kMostDocument));
  TRY(tree.add_file("index.json",
                    index_json(image.manifest_digest, manifest.size(), image.reference)));
  std::vector<std::string> digests = {image.manifest_digest, image.config_digest};
  for (const auto& layer : image.layers) digests.push_back(layer.digest);
  for (const std::string& digest : digests)
    TRY(tree.add_host_file("blobs/sha256/" + digest.substr(digest.find(':') + 1),
                           store.blob_path(digest)));
  TRY_ASSIGN(base::NewFile file, base::NewFile::create(path));
  const auto written = write_tar(
      tree, 0, [&](ConstByteSpan bytes) { return base::write_all(file.fd(), bytes, path); });
  if (!written) return wrap(written.error(), "cannot write {}", path);
  return file.keep();
}

}  // namespace smol::build

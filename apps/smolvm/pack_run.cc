// `pack run` and `pack launch`: a packed machine under the installed runtime. The file is opened
// and its signature checked against the user's policy here; what runs is that open file.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include "image/capsule/pack.h"
#include "pack.h"
#include "pack_base.h"

namespace smolvm {
namespace {

using namespace smol;

struct Opened {
  base::UniqueFd file, kernel, init;  // kernel, init: of a split pack
};

Result<base::UniqueFd> shared_part(const std::string& path, const image::PackedConfig& config,
                                   const char* key, const char* what) {
  const auto digest = config.extra.find(key);
  if (digest == config.extra.end()) return fail("{} has no {}, and does not name one", path, what);
  return shared_file(path, digest->second, what);
}

Result<Opened> open_pack(const std::string& path, const image::VerifyPolicy& policy) {
  Opened opened;
  TRY_ASSIGN(opened.file, base::open_file(path, O_RDONLY));
  base::UniqueFd copy(::fcntl(opened.file.get(), F_DUPFD_CLOEXEC, 3));
  TRY_ASSIGN(const auto container, image::Container::open(std::move(copy), path, policy));
  if (container.find(image::SectionKind::kKernel) != nullptr) return opened;
  const image::Section* const section = container.find(image::SectionKind::kConfig);
  if (section == nullptr) return fail("{} has no section 'config'", path);
  TRY_ASSIGN(const std::string text,
             container.read_section(*section, image::PackedConfig::kMaxText));
  TRY_ASSIGN(const auto config, image::PackedConfig::parse(text));
  TRY_ASSIGN(opened.kernel, shared_part(path, config, image::kExtraKernelDigest, "kernel"));
  TRY_ASSIGN(opened.init, shared_part(path, config, image::kExtraInitDigest, "init"));
  return opened;
}

// Does not return when it succeeds. words: as a capsule's.
Result<int> become_capsule(const std::string& path, const image::VerifyPolicy& policy,
                           const std::vector<std::string>& words) {
  TRY_ASSIGN(const std::string program, find_runtime());
  TRY_ASSIGN(const Opened opened, open_pack(path, policy));
  std::vector<std::string> all = {path};
  const auto hand_over = [&](const char* option, const base::UniqueFd& file) {
    if (!file.valid()) return;
    ::fcntl(file.get(), F_SETFD, 0);
    all.push_back(fmt::format("{}={}", option, file.get()));
  };
  hand_over("--from-fd", opened.file);
  hand_over("--kernel-fd", opened.kernel);
  hand_over("--init-fd", opened.init);
  all.insert(all.end(), words.begin(), words.end());
  std::vector<char*> argv;
  for (std::string& word : all) argv.push_back(word.data());
  argv.push_back(nullptr);
  ::execv(program.c_str(), argv.data());
  return fail_errno("cannot run {}", program);
}

// Options of ours that a capsule spells alike.
constexpr const char* kPassed[] = {"port", "volume", "env",        "workdir", "user", "mem",
                                   "cpus", "accel",  "entrypoint", "timeout", "name"};
constexpr const char* kPassedFlags[] = {"net",    "interactive", "tty",
                                        "detach", "verbose",     "publish-all"};

Result<std::vector<std::string>> words_of(const Invocation& invocation) {
  std::vector<std::string> words = {"run"};
  for (const auto& [key, values] : invocation.values) {
    if (key == "from" || key == "key") continue;
    if (std::ranges::find(kPassedFlags, key) != std::end(kPassedFlags)) {
      words.push_back("--" + key);
    } else if (std::ranges::find(kPassed, key) != std::end(kPassed)) {
      for (const std::string& value : values) words.push_back(fmt::format("--{}={}", key, value));
    } else {
      return fail("--{}: a packed machine does not take this", key);
    }
  }
  words.push_back("--");
  words.insert(words.end(), invocation.command.begin(), invocation.command.end());
  return words;
}

}  // namespace

Result<int> run_pack_run(const Invocation& invocation) {
  if (!invocation.has("from")) return fail("--from FILE: what to run is not said");
  TRY_ASSIGN(const auto policy, pack_policy(invocation));
  TRY_ASSIGN(const auto words, words_of(invocation));
  return become_capsule(invocation.text("from"), policy, words);
}

Result<int> run_pack_launch(int argc, char** argv) {
  TRY_ASSIGN(const auto policy, pack_policy({}));
  return become_capsule(argv[0], policy, std::vector<std::string>(argv + 1, argv + argc));
}

}  // namespace smolvm

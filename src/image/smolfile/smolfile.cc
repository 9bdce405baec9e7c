#include "image/smolfile/smolfile.h"

#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "image/smolfile/reader.h"
#include "image/smolfile/sections.h"

namespace smol::image {
namespace {

constexpr std::size_t kMostBytes = 1 << 20, kDeepestChain = 16;

using Keys = std::vector<std::string_view>;

Result<> read_top(const TableReader& top, Smolfile& file) {
  TRY(top.only({"image", "entrypoint", "cmd",     "env",     "workdir", "user",
                "cpus",  "memory",     "net",     "gpu",     "storage", "overlay",
                "ports", "volumes",    "init",    "expose",  "labels",  "stop_signal",
                "dev",   "artifact",   "pack",    "network", "health",  "restart",
                "auth",  "service",    "secrets", "build"}));
  TRY(top.text("image", file.image));
  TRY(top.texts("entrypoint", file.entrypoint));
  TRY(top.texts("cmd", file.cmd));
  TRY(top.environment("env", file.env));
  TRY(top.text("workdir", file.workdir));
  TRY(top.text("user", file.user));
  TRY(top.number("cpus", 1, kMostCpus, file.cpus));
  TRY(top.number("memory", 1, kMostMemoryMib, file.memory_mib));
  TRY(top.number("storage", 0, kMostDiskGib, file.storage_gib));
  TRY(top.number("overlay", 1, kMostDiskGib, file.overlay_gib));
  TRY(top.boolean("net", file.net));
  bool gpu = false;
  TRY(top.boolean("gpu", gpu));
  if (gpu) return top.bad("gpu", "'gpu' is not supported yet");
  TRY(top.texts("ports", file.ports));
  TRY(top.texts("volumes", file.volumes));
  TRY(top.texts("init", file.init));
  TRY(top.texts("expose", file.expose));
  TRY(top.pairs("labels", file.labels));
  TRY(top.text("stop_signal", file.stop_signal));
  if (!file.workdir.empty() && file.workdir[0] != '/')
    return top.bad("workdir", "'workdir' is '{}'; it must be an absolute path in the guest",
                   file.workdir);
  return {};
}

// `[path]:rest` with a relative path becomes absolute: a Smolfile means the same wherever it is
// read from.
void resolve_volumes(std::vector<std::string>& volumes, const std::string& folder) {
  for (std::string& volume : volumes)
    if (!volume.empty() && volume[0] != '/' && volume[0] != ':') volume = folder + "/" + volume;
}

void note_places(const toml::table& table, Smolfile& file) {
  for (auto&& [key, node] : table) {
    file.places[std::string(key.str())] = place_of(key.source());
    if (const toml::table* const inner = node.as_table())
      for (auto&& [name, value] : *inner)
        file.places[fmt::format("{}.{}", key.str(), name.str())] = place_of(name.source());
  }
}

Result<toml::table> parse(std::string_view text, const std::string& path) {
  // Checked before, because toml++ counts columns in code points and takes anything else for one.
  if (text.size() > kMostBytes)
    return fail("{}: {} bytes are too long for a Smolfile ({} at most)", path, text.size(),
                kMostBytes);
  auto parsed = toml_text::parse(text, path);
  if (!parsed)
    return fail("{}: {}", place_text(path, place_of({parsed.error().begin, {}, nullptr})),
                parsed.error().description);
  return std::move(*parsed);
}

}  // namespace

std::string Smolfile::at(SmolfilePlace place) const { return place_text(path, place); }

std::string Smolfile::at(std::string_view key) const {
  const auto found = places.find(key);
  return found == places.end() ? path : at(found->second);
}

Result<Smolfile> parse_smolfile(std::string_view text, const std::string& path,
                                const std::string& folder) {
  TRY_ASSIGN(const toml::table table, parse(text, path));
  Smolfile file;
  file.path = path;
  file.folder = folder;
  note_places(table, file);
  const TableReader top(path, "", table);
  TRY(read_top(top, file));
  TRY(read_sections(top, file));
  TRY(read_build(top, file));
  // A path of the host; references never begin so.
  if (!file.build && (file.image.starts_with("./") || file.image.starts_with("../")))
    file.image = folder + "/" + file.image;
  resolve_volumes(file.volumes, folder);
  resolve_volumes(file.dev.volumes, folder);
  return file;
}

Result<Smolfile> read_smolfile(const std::string& path) {
  struct stat status{};
  if (::stat(path.c_str(), &status) != 0) return fail_errno("cannot read the Smolfile {}", path);
  if (S_ISDIR(status.st_mode)) return read_smolfile(path + "/Smolfile");
  if (!S_ISREG(status.st_mode)) return fail("cannot read the Smolfile {}: not a file", path);
  if (static_cast<u64>(status.st_size) > kMostBytes)
    return fail("{}: {} bytes are too long for a Smolfile ({} at most)", path, status.st_size,
                kMostBytes);
  TRY_ASSIGN(const std::string text, base::read_text_file(path));
  char resolved[PATH_MAX];
  if (::realpath(path.c_str(), resolved) == nullptr)
    return fail_errno("cannot read the Smolfile {}", path);
  std::string folder(resolved);
  folder.resize(std::max<std::size_t>(folder.rfind('/'), 1));
  return parse_smolfile(text, path, folder);
}

Result<std::vector<Smolfile>> read_smolfile_chain(const std::string& path) {
  std::vector<Smolfile> chain;
  std::vector<std::pair<dev_t, ino_t>> seen;
  std::string next = path, way;
  for (;;) {
    auto file = read_smolfile(next);
    if (!file) {
      if (chain.empty()) return std::unexpected(file.error());
      const Smolfile& last = chain.back();
      return wrap(file.error(), "{}: the base cannot be read", last.at(last.build->place));
    }
    struct stat status{};
    if (::stat(file->path.c_str(), &status) != 0) return fail_errno("cannot read {}", file->path);
    const std::pair identity{status.st_dev, status.st_ino};
    way += (way.empty() ? "" : " -> ") + file->path;
    for (const auto& before : seen)
      if (before == identity)
        return fail("{}: the base leads back to itself: {}",
                    chain.back().at(chain.back().build->place), way);
    if (chain.size() >= kDeepestChain)
      return fail("{}: more than {} Smolfiles are built on each other", file->path, kDeepestChain);
    seen.push_back(identity);
    const bool more = file->build && !file->build->smolfile.empty();
    if (!chain.empty() && !file->build)
      return fail("{}: the base {} has no [build]", chain.back().at(chain.back().build->place),
                  file->path);
    next = more ? file->build->smolfile : "";
    chain.push_back(std::move(*file));
    if (!more) break;
  }
  return std::vector<Smolfile>(std::make_move_iterator(chain.rbegin()),
                               std::make_move_iterator(chain.rend()));
}

}  // namespace smol::image

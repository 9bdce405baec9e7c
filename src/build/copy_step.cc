#include "build/copy_step.h"

#include <fnmatch.h>
#include <glob.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>

#include "base/directory.h"

namespace smol::build {
namespace {

using image::Attributes;
using image::BuildStep;
using image::Tree;

constexpr u64 kMostAccounts = 1 << 20;

// The number in column `column` of the line of `file` that begins with `name:`.
Result<u32> account(const Tree& base, const char* file, const std::string& name, int column) {
  u32 number = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (error == std::errc() && end == name.data() + name.size()) return number;
  const auto text = base.read_file(file, kMostAccounts);
  if (text)
    for (std::size_t at = 0; at < text->size();) {
      const std::size_t stop = std::min(text->find('\n', at), text->size());
      std::string line = text->substr(at, stop - at);
      at = stop + 1;
      if (!line.starts_with(name + ":")) continue;
      for (int i = 0; i < column; ++i)
        line = line.substr(std::min(line.find(':') + 1, line.size()));
      if (std::from_chars(line.data(), line.data() + line.size(), number).ec == std::errc())
        return number;
    }
  return fail("owner '{}' is not in the image's {}", name, file);
}

Result<> set_owner(const Tree& base, const std::string& owner, Attributes& attributes) {
  if (owner.empty()) return {};
  const std::size_t colon = owner.find(':');
  const std::string user = owner.substr(0, colon);
  TRY_ASSIGN(attributes.uid, account(base, "/etc/passwd", user, 2));
  const std::string group = colon == std::string::npos ? user : owner.substr(colon + 1);
  auto gid = account(base, "/etc/group", group, 2);
  if (!gid && colon == std::string::npos) gid = account(base, "/etc/passwd", user, 3);
  if (!gid) return std::unexpected(gid.error());
  attributes.gid = *gid;
  return {};
}

class Copier {
 public:
  Copier(const CopyContext& context, const BuildStep& step, const std::string& spool_folder)
      : context_(context), step_(step), tree_(spool_folder) {}

  Result<Tree> run() {
    attributes_.mtime = {context_.epoch, 0};
    TRY(set_owner(context_.base, step_.owner, attributes_));
    std::vector<std::string> found;
    for (const std::string& pattern : step_.sources) TRY(expand(pattern, found));
    std::string target = step_.target;
    if (target[0] != '/') target = context_.workdir + "/" + target;
    const auto there = context_.base.resolve(target);
    const bool into = found.size() > 1 || target.back() == '/' ||
                      (there && context_.base.node(*there).is_directory());
    TRY_ASSIGN(target, canonical(target));
    for (const std::string& host : found) {
      struct stat status{};
      if (::lstat(host.c_str(), &status) != 0) return fail_errno("cannot copy {}", host);
      const std::string name = host.substr(host.rfind('/') + 1);
      if (S_ISDIR(status.st_mode)) {
        TRY(add_folder(target));
        TRY(copy_contents(host, target, ""));
      } else {
        TRY(copy_one(host, status, into ? target + "/" + name : target));
      }
    }
    return std::move(tree_);
  }

 private:
  Result<> expand(const std::string& pattern, std::vector<std::string>& found) {
    glob_t matches{};
    const std::string whole = context_.file.folder + "/" + pattern;
    const int failed = ::glob(whole.c_str(), 0, nullptr, &matches);
    std::vector<std::string> names;
    for (std::size_t i = 0; failed == 0 && i < matches.gl_pathc; ++i)
      names.emplace_back(matches.gl_pathv[i]);
    ::globfree(&matches);
    if (names.empty()) return fail("'{}' is not there", pattern);
    std::sort(names.begin(), names.end());
    for (std::string& name : names) {
      while (name.size() > 1 && name.back() == '/') name.pop_back();
      TRY(check_inside(name));
      found.push_back(std::move(name));
    }
    return {};
  }

  // A link on the way must not lead out of the folder; the last word is copied as it is.
  Result<> check_inside(const std::string& path) const {
    const std::string above = path.substr(0, path.rfind('/'));
    char resolved[PATH_MAX];
    if (::realpath(above.c_str(), resolved) == nullptr) return fail_errno("cannot copy {}", path);
    const std::string real = std::string(resolved) + "/";
    if (!real.starts_with(context_.file.folder + "/"))
      return fail("'{}' leads out of the Smolfile's folder", path);
    return {};
  }

  // Links of the base are followed as far as it has the path, so that no layer entry replaces one.
  Result<std::string> canonical(const std::string& path) const {
    std::string done;
    for (std::size_t at = 0; at < path.size();) {
      const std::size_t slash = std::min(path.find('/', at), path.size());
      const std::string word = path.substr(at, slash - at);
      at = slash + 1;
      if (word.empty() || word == ".") continue;
      if (word == "..") return fail("'{}': '..' is not taken", path);
      const std::string next = done + "/" + word;
      const auto node = context_.base.resolve(next);
      done = node && context_.base.node(*node).is_directory() ? context_.base.path_of(*node) : next;
      if (done == "/") done.clear();
    }
    return done;
  }

  Result<> add_folder(const std::string& path) {
    if (path.empty() || tree_.find(path)) return {};
    TRY(add_folder(path.substr(0, path.rfind('/'))));
    Attributes attributes = attributes_;
    attributes.mode = 0755;
    if (const auto old = context_.base.find(path))
      if (context_.base.node(*old).is_directory()) attributes = context_.base.node(*old);
    TRY(tree_.add_directory(path, attributes));
    return {};
  }

  Result<> copy_one(const std::string& host, const struct stat& status, const std::string& target) {
    TRY(add_folder(target.substr(0, target.rfind('/'))));
    Attributes attributes = attributes_;
    if (S_ISLNK(status.st_mode)) {
      char text[PATH_MAX];
      const ssize_t size = ::readlink(host.c_str(), text, sizeof(text));
      if (size < 0) return fail_errno("cannot copy {}", host);
      attributes.mode = 0777;
      TRY(tree_.add_symlink(target, std::string(text, static_cast<std::size_t>(size)), attributes));
      return {};
    }
    if (!S_ISREG(status.st_mode))
      return fail("cannot copy {}: neither file nor link nor folder", host);
    attributes.mode =
        static_cast<u16>(step_.mode.value_or((status.st_mode & S_IXUSR) != 0 ? 0755 : 0644));
    TRY(tree_.add_host_file(target, host, attributes));
    return {};
  }

  Result<> copy_contents(const std::string& host, const std::string& target,
                         const std::string& below) {
    TRY_ASSIGN(const auto names, base::names_in(host));
    for (const std::string& name : names) {
      const std::string relative = below + name;
      if (excluded(name, relative)) continue;
      const std::string from = host + "/" + name, to = target + "/" + name;
      struct stat status{};
      if (::lstat(from.c_str(), &status) != 0) return fail_errno("cannot copy {}", from);
      if (!S_ISDIR(status.st_mode)) {
        TRY(copy_one(from, status, to));
        continue;
      }
      TRY(add_folder(to));
      TRY(copy_contents(from, to, relative + "/"));
    }
    return {};
  }

  bool excluded(const std::string& name, const std::string& relative) const {
    return std::any_of(step_.exclude.begin(), step_.exclude.end(), [&](const std::string& pattern) {
      return ::fnmatch(pattern.c_str(), name.c_str(), 0) == 0 ||
             ::fnmatch(pattern.c_str(), relative.c_str(), FNM_PATHNAME) == 0;
    });
  }

  const CopyContext& context_;
  const BuildStep& step_;
  Tree tree_;
  Attributes attributes_;
};

}  // namespace

Result<Tree> copy_layer(const CopyContext& context, const BuildStep& step,
                        const std::string& spool_folder) {
  return Copier(context, step, spool_folder).run();
}

}  // namespace smol::build

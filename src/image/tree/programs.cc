// The walk over a program's dependencies. A library is put where the host has it, so that paths
// inside of files stay true; the loader of the new root has no cache, so what lies outside of the
// folders that every loader searches also gets a link in /usr/lib.
#include "image/tree/programs.h"

#include <fcntl.h>
#include <glob.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <sstream>

namespace smol::image {
namespace {

constexpr int kMaxDepth = 64;
constexpr std::string_view kDefaultFolders[] = {"/lib/x86_64-linux-gnu",
                                                "/usr/lib/x86_64-linux-gnu",
                                                "/lib64",
                                                "/usr/lib64",
                                                "/lib",
                                                "/usr/lib"};

// "/a/./b/../c" -> "/a/c".
std::string normal(std::string_view path) {
  std::vector<std::string_view> words;
  while (!path.empty()) {
    const std::size_t slash = path.find('/');
    const std::string_view word = path.substr(0, slash);
    path = slash == path.npos ? std::string_view() : path.substr(slash + 1);
    if (word.empty() || word == ".") continue;
    if (word != "..") {
      words.push_back(word);
    } else if (!words.empty()) {
      words.pop_back();
    }
  }
  std::string text;
  for (const std::string_view word : words) text.append("/").append(word);
  return text.empty() ? "/" : text;
}

std::string folder_of(const std::string& path) {
  return path.substr(0, std::max<std::size_t>(path.rfind('/'), 1));
}

std::string replaced(std::string text, std::string_view what, const std::string& with) {
  for (std::size_t at = 0; (at = text.find(what, at)) != text.npos; at += with.size())
    text.replace(at, what.size(), with);
  return text;
}

// ld.so.conf(5): a folder a line, "include PATTERN", comments.
void read_conf(const std::string& root, const std::string& path, int depth,
               std::vector<std::string>& folders) {
  const auto text = base::read_text_file(root + path);
  if (!text || depth > 8) return;
  std::istringstream lines(*text);
  for (std::string line; std::getline(lines, line);) {
    line = line.substr(0, line.find('#'));
    std::istringstream words(line);
    for (std::string word; words >> word;) {
      if (word != "include") {
        if (word.starts_with('/')) folders.push_back(normal(word));
        continue;
      }
      std::string pattern;
      if (!(words >> pattern)) break;
      if (!pattern.starts_with('/')) pattern = folder_of(path) + "/" + pattern;
      glob_t found{};
      if (::glob((root + pattern).c_str(), 0, nullptr, &found) == 0)
        for (std::size_t i = 0; i < found.gl_pathc; ++i)
          read_conf(root, std::string(found.gl_pathv[i]).substr(root.size()), depth + 1, folders);
      ::globfree(&found);
    }
  }
}

struct Opened {
  std::unique_ptr<DataSource> source;
  u64 size = 0;
  mode_t mode = 0;
  Timestamp mtime;
};

Result<Opened> open_program(const std::string& host) {
  TRY_ASSIGN(base::UniqueFd fd, base::open_file(host, O_RDONLY | O_NONBLOCK));
  struct stat status{};
  if (::fstat(fd.get(), &status) != 0) return fail_errno("cannot stat {}", host);
  if (!S_ISREG(status.st_mode)) return fail("{} is not a file", host);
  const u64 size = static_cast<u64>(status.st_size);
  return Opened{fd_source(std::move(fd), 0, size, host),
                size,
                status.st_mode,
                {status.st_mtim.tv_sec, static_cast<u32>(status.st_mtim.tv_nsec)}};
}

}  // namespace

ProgramAdder::ProgramAdder(Tree& tree, std::string host_root)
    : tree_(tree), host_root_(std::move(host_root)) {
  read_conf(host_root_, "/etc/ld.so.conf", 0, folders_);
  for (const std::string_view folder : kDefaultFolders)
    if (std::find(folders_.begin(), folders_.end(), folder) == folders_.end())
      folders_.emplace_back(folder);
}

void ProgramAdder::hint(const std::string& text) {
  if (std::find(hints_.begin(), hints_.end(), text) == hints_.end()) hints_.push_back(text);
}

Result<> ProgramAdder::add(const std::string& host, const std::string& inside) {
  return add_file(host, normal(inside), nullptr, 0);
}

Result<> ProgramAdder::add_file(const std::string& host, const std::string& inside,
                                const Loaded* loader, int depth) {
  if (!done_.insert(inside).second) return {};
  if (depth > kMaxDepth)
    return fail("{}: needed by a chain of more than {} files", host, kMaxDepth);
  TRY_ASSIGN(const Opened file, open_program(host));
  TRY(tree_.add_host_file(inside, host,
                          {.mode = static_cast<u16>(file.mode & 07777), .mtime = file.mtime}));
  if (loader != nullptr) added_.push_back(inside);
  std::string first(std::min<u64>(file.size, 256), '\0');
  TRY(file.source->read(0, {reinterpret_cast<u8*>(first.data()), first.size()}));
  if (first.starts_with("#!"))
    return add_script(host, first.substr(2, first.find('\n') - 2), depth);
  if (!is_elf(first)) return fail("{}: neither an ELF file nor a script", host);
  TRY_ASSIGN(ElfFile elf, read_elf(*file.source, file.size, host));
  if (elf.machine != kElfX86_64) return fail("{}: not for x86-64 (machine {})", host, elf.machine);
  const Loaded loaded{host, inside, std::move(elf), loader};
  return add_needs(loaded, depth);
}

Result<> ProgramAdder::add_script(const std::string& host, const std::string& first_line,
                                  int depth) {
  std::istringstream words(first_line);
  std::string interpreter, argument;
  words >> interpreter >> argument;
  if (!interpreter.starts_with('/'))
    return fail("{}: a script whose interpreter '{}' is no path", host, interpreter);
  if (tree_.resolve(interpreter)) return {};
  if (interpreter == "/usr/bin/env")
    hint(fmt::format("{} is run by env, which looks for '{}' in PATH: add that program too", host,
                     argument));
  hint(fmt::format(
      "{} is a script: its interpreter {} is included, what that opens at run time is not", host,
      interpreter));
  const auto added = add_file(host_root_ + interpreter, interpreter, nullptr, depth + 1);
  if (!added) return wrap(added.error(), "the interpreter of {}", host);
  added_.push_back(interpreter);
  return {};
}

Result<> ProgramAdder::add_needs(const Loaded& loaded, int depth) {
  const ElfFile& elf = loaded.elf;
  if (!elf.interpreter.empty()) {
    const auto added =
        add_file(host_root_ + elf.interpreter, normal(elf.interpreter), &loaded, depth + 1);
    if (!added) return wrap(added.error(), "the dynamic loader of {}", loaded.host);
  }
  std::vector<std::string> needed = elf.needed;
  for (const std::string& name : elf.needed) glibc_ = glibc_ || name == "libc.so.6";
  // glibc opens this when a thread is cancelled; where the host does not have it, nobody can have
  // asked for it.
  const std::string unwinder = "libgcc_s.so.1";
  if (elf.cancels_threads && glibc_ && !elf.soname.starts_with("libc.so") && find(unwinder, loaded))
    needed.push_back(unwinder);
  if (elf.asks_name_service && glibc_ && loaded.loader == nullptr)
    hint(
        fmt::format("{} asks glibc's name service: /etc/passwd and DNS work, other sources of "
                    "/etc/nsswitch.conf need their libnss_*.so.2",
                    loaded.host));
  for (const std::string& name : needed) {
    TRY_ASSIGN(const Found found, find(name, loaded));
    TRY(add_file(found.host, found.inside, &loaded, depth + 1));
    TRY(link_into_default_folder(found, name));
  }
  return {};
}

bool ProgramAdder::is_library(const std::string& host, u16 machine) const {
  const auto file = open_program(host);
  if (!file) return false;
  const auto elf = read_elf(*file->source, file->size, host);
  return elf && elf->machine == machine;
}

// folders: a DT_RPATH or DT_RUNPATH of owner.
bool ProgramAdder::find_in(const std::string& folders, const Loaded& owner, const std::string& name,
                           u16 machine, Found& found) const {
  std::istringstream list(folders);
  for (std::string folder; std::getline(list, folder, ':');) {
    const bool relative =
        folder.find("$ORIGIN") != folder.npos || folder.find("${ORIGIN}") != folder.npos;
    const auto at = [&](const std::string& origin) {
      std::string path = replaced(replaced(folder, "${ORIGIN}", origin), "$ORIGIN", origin);
      return replaced(replaced(path, "${LIB}", "lib/x86_64-linux-gnu"), "$LIB",
                      "lib/x86_64-linux-gnu");
    };
    const std::string inside = at(folder_of(owner.inside));
    if (!inside.starts_with('/'))
      continue;  // relative to where the program is started: not for a root
    const std::string host = relative ? at(folder_of(owner.host)) : host_root_ + inside;
    if (!is_library(host + "/" + name, machine)) continue;
    found = {host + "/" + name, normal(inside + "/" + name)};
    return true;
  }
  return false;
}

Result<ProgramAdder::Found> ProgramAdder::find(const std::string& name,
                                               const Loaded& loaded) const {
  Found found;
  const u16 machine = loaded.elf.machine;
  if (name.find('/') != name.npos) {
    if (name.starts_with('/') && is_library(host_root_ + name, machine))
      return Found{host_root_ + name, normal(name)};
    return fail("{} needs {}, which is not there", loaded.host, name);
  }
  if (loaded.elf.runpath.empty())
    for (const Loaded* owner = &loaded; owner != nullptr; owner = owner->loader)
      if (find_in(owner->elf.rpath, *owner, name, machine, found)) return found;
  if (find_in(loaded.elf.runpath, loaded, name, machine, found)) return found;
  // musl's loader is its C library, whatever name it is needed by.
  for (const Loaded* owner = &loaded; owner != nullptr; owner = owner->loader)
    if (owner->elf.interpreter.find("/ld-musl-") != std::string::npos &&
        (name == "libc.so" || name.starts_with("libc.musl-")))
      return Found{host_root_ + owner->elf.interpreter, normal(owner->elf.interpreter)};
  for (const std::string& folder : folders_) {
    const std::string path = folder + "/" + name;
    if (is_library(host_root_ + path, machine)) return Found{host_root_ + path, path};
  }
  return fail("{} needs the library {}, which is not there", loaded.host, name);
}

Result<> ProgramAdder::link_into_default_folder(const Found& found, const std::string& name) {
  const std::string folder = folder_of(found.inside);
  const bool known = std::find(std::begin(kDefaultFolders), std::end(kDefaultFolders), folder) !=
                     std::end(kDefaultFolders);
  const bool configured = std::find(folders_.begin(), folders_.end(), folder) != folders_.end();
  const std::string link = "/usr/lib/" + name;
  if (known || !configured || tree_.resolve(link)) return {};
  TRY(tree_.add_symlink(link, found.inside));
  return {};
}

}  // namespace smol::image

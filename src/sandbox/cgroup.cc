#include "sandbox/cgroup.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdlib>

namespace smol::sandbox {
namespace {

constexpr std::string_view kPrefix = "smolvm-";
constexpr std::array<std::string_view, 3> kControllers = {"memory", "cpu", "pids"};
constexpr u64 kCpuPeriodUs = 100'000;

std::string read_line(const std::string& path) {
  auto text = base::read_text_file(path);
  if (!text) return "";
  while (!text->empty() && text->back() == '\n') text->pop_back();
  return *text;
}

Result<> write_file(const std::string& path, std::string_view text) {
  TRY_ASSIGN(const auto fd, base::open_file(path, O_WRONLY));
  if (::write(fd.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    return fail_errno("cannot write '{}' to {}", text, path);
  return {};
}

std::vector<std::string_view> words_of(std::string_view text, char separator = ' ') {
  std::vector<std::string_view> words;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(separator), text.size());
    if (end != 0) words.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return words;
}

bool has_word(std::string_view text, std::string_view word) {
  const auto words = words_of(text);
  return std::find(words.begin(), words.end(), word) != words.end();
}

// Blanks and backslashes in mountinfo are octal.
std::string unescape(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    u8 value = 0;
    if (text[i] == '\\' && i + 3 < text.size() &&
        std::from_chars(text.data() + i + 1, text.data() + i + 4, value, 8).ec == std::errc()) {
      out += static_cast<char>(value);
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

// This process's line "0::/path" (cgroups(7)).
std::string own_path() {
  const auto text = base::read_text_file("/proc/self/cgroup");
  if (!text) return "";
  for (const std::string_view line : words_of(*text, '\n'))
    if (line.starts_with("0::/")) return std::string(line.substr(3));
  return "";
}

bool may_change(const std::string& directory) {
  return ::access(directory.c_str(), W_OK | X_OK) == 0 &&
         ::access((directory + "/cgroup.procs").c_str(), W_OK) == 0;
}

std::string parent_of(const std::string& directory) {
  return directory.substr(0, directory.rfind('/'));
}

// How many of the controllers those below directory get; with `switch_on`, after trying to.
std::size_t controllers_below(const std::string& directory, bool switch_on) {
  const std::string control = directory + "/cgroup.subtree_control";
  if (switch_on) {
    const std::string there = read_line(directory + "/cgroup.controllers");
    const std::string on = read_line(control);
    for (const std::string_view controller : kControllers)
      if (has_word(there, controller) && !has_word(on, controller))
        (void)write_file(control, fmt::format("+{}", controller));  // seen in what is on then
  }
  const std::string on = read_line(control);
  return static_cast<std::size_t>(
      std::count_if(kControllers.begin(), kControllers.end(),
                    [&](std::string_view controller) { return has_word(on, controller); }));
}

Result<std::string> choose_parent(const CgroupSeat& seat, bool switch_on) {
  std::string best;
  std::size_t most = 0;
  for (std::string at = seat.own; at.size() >= seat.mount.size(); at = parent_of(at)) {
    if (!may_change(at)) {
      if (at == seat.mount) break;
      continue;
    }
    const std::size_t count = controllers_below(at, switch_on);
    if (best.empty() || count > most) {
      best = at;
      most = count;
    }
    if (most == kControllers.size() || at == seat.mount) break;
  }
  if (best.empty())
    return fail("the cgroup {} and those above it are not delegated to this user", seat.own);
  return best;
}

// "smolvm-NAME-PID" of a launcher that is gone.
bool is_left_over(std::string_view name) {
  if (!name.starts_with(kPrefix)) return false;
  const std::string_view number = name.substr(name.rfind('-') + 1);
  pid_t launcher = 0;
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), launcher);
  if (error != std::errc() || end != number.data() + number.size() || launcher <= 0) return false;
  return ::kill(launcher, 0) != 0 && errno == ESRCH;
}

void sweep(const std::string& parent) {
  DIR* const folder = ::opendir(parent.c_str());
  if (folder == nullptr) return;
  while (const dirent* const entry = ::readdir(folder))
    if (is_left_over(entry->d_name)) remove_cgroup(fmt::format("{}/{}", parent, entry->d_name));
  ::closedir(folder);
}

u64 number_in(std::string_view text) {
  u64 value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() ? value : 0;
}

}  // namespace

Result<CgroupSeat> cgroup_seat() {
  const std::string path = own_path();
  if (path.empty()) return fail("the host has no cgroup v2");
  if (path.starts_with("/..")) return fail("this process's cgroup is outside of what it can see");
  TRY_ASSIGN(const std::string mounts, base::read_text_file("/proc/self/mountinfo"));
  for (const std::string_view line : words_of(mounts, '\n')) {
    const std::size_t dash = line.find(" - ");
    const auto before = words_of(line.substr(0, dash));
    if (dash == std::string_view::npos || before.size() < 5) continue;
    if (!line.substr(dash + 3).starts_with("cgroup2 ")) continue;
    const std::string root = unescape(before[3]), mount = unescape(before[4]);
    const std::string prefix = root == "/" ? "" : root;
    if (!path.starts_with(prefix)) continue;
    const std::string rest = path.substr(prefix.size());
    if (!rest.empty() && rest[0] != '/') continue;
    return CgroupSeat{mount, rest == "/" ? mount : mount + rest};
  }
  return fail("no cgroup2 file system is mounted");
}

bool in_cgroup(std::string_view directory) {
  const std::string path = own_path();
  return !path.empty() && path.substr(path.rfind('/')) == directory.substr(directory.rfind('/'));
}

void remove_cgroup(const std::string& directory) { ::rmdir(directory.c_str()); }

Cgroup::Removal::~Removal() {
  if (!path.empty()) remove_cgroup(path);
}

Cgroup::~Cgroup() = default;

Result<Cgroup> Cgroup::create(std::string_view name, const CgroupLimits& limits) {
  TRY_ASSIGN(const CgroupSeat seat, cgroup_seat());
  const bool systemd = ::access("/run/systemd/system", F_OK) == 0;
  TRY_ASSIGN(const std::string parent, choose_parent(seat, limits.any() || !systemd));
  sweep(parent);
  Cgroup cgroup;
  cgroup.path_ = fmt::format("{}/{}{}-{}", parent, kPrefix, name, ::getpid());
  remove_cgroup(cgroup.path_);  // of an earlier process of this number
  if (::mkdir(cgroup.path_.c_str(), 0755) != 0) return fail_errno("cannot make {}", cgroup.path_);
  cgroup.path_to_remove_.reset(new Removal{cgroup.path_});
  TRY_ASSIGN(cgroup.fd_, base::open_file(cgroup.path_, O_RDONLY | O_DIRECTORY));
  const std::string there = read_line(cgroup.path_ + "/cgroup.controllers");
  for (const std::string_view controller : kControllers)
    if (has_word(there, controller)) cgroup.controllers_.emplace_back(controller);
  const auto hold = [&](const char* file, const std::string& value) {
    const auto written = write_file(fmt::format("{}/{}", cgroup.path_, file), value);
    if (written) {
      cgroup.limits_.push_back(fmt::format("{} {}", file, value));
    } else if (const std::string controller(file, std::string_view(file).find('.'));
               !has_word(there, controller)) {
      cgroup.missing_.push_back(
          fmt::format("{}: the {} controller is not there in {}", file, controller, parent));
    } else {
      cgroup.missing_.push_back(fmt::format("{}: {}", file, written.error().chain()));
    }
  };
  if (limits.memory_bytes != 0) hold("memory.max", fmt::format("{}", limits.memory_bytes));
  if (limits.cpu_percent != 0)
    hold("cpu.max", fmt::format("{} {}", limits.cpu_percent * kCpuPeriodUs / 100, kCpuPeriodUs));
  if (limits.processes != 0) hold("pids.max", fmt::format("{}", limits.processes));
  return cgroup;
}

std::string Cgroup::detail() const {
  return fmt::format(
      "{}: controllers {}; limits {}", path_,
      controllers_.empty() ? "none" : fmt::format("{}", fmt::join(controllers_, " ")),
      limits_.empty() ? "none" : fmt::format("{}", fmt::join(limits_, ", ")));
}

std::vector<std::pair<std::string, u64>> cgroup_figures(const std::string& directory) {
  std::vector<std::pair<std::string, u64>> figures;
  for (const char* const file :
       {"memory.current", "memory.peak", "memory.max", "pids.current", "pids.max"}) {
    const std::string text = read_line(fmt::format("{}/{}", directory, file));
    if (!text.empty() && text != "max") figures.emplace_back(file, number_in(text));
  }
  const std::string cpu = read_line(directory + "/cpu.stat");
  for (const std::string_view line : words_of(cpu, '\n'))
    if (const auto words = words_of(line); words.size() == 2 && words[0] == "usage_usec")
      figures.emplace_back("cpu.usage_usec", number_in(words[1]));
  return figures;
}

}  // namespace smol::sandbox

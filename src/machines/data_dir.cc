#include "machines/data_dir.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "base/bytes.h"
#include "base/fd.h"

namespace smol::machines {
namespace {

// "/vsock.sock_65535"
constexpr std::size_t kLongestSocketName = 17;
constexpr int kRemoveTries = 5;

Result<> remove_tree_once(const std::string& path, int tries);

const char* variable(const char* name) {
  const char* const value = std::getenv(name);
  return value != nullptr && value[0] != '\0' ? value : nullptr;
}

Result<> remove_below(int folder, const std::string& path) {
  DIR* const stream = ::fdopendir(folder);
  if (stream == nullptr) return fail_errno("cannot read {}", path);
  Result<> result;
  while (const dirent* const entry = ::readdir(stream)) {
    if (std::strcmp(entry->d_name, ".") == 0 || std::strcmp(entry->d_name, "..") == 0) continue;
    const std::string inside = path + "/" + entry->d_name;
    if (::unlinkat(::dirfd(stream), entry->d_name, 0) == 0) continue;
    if (errno != EISDIR) {
      result = fail_errno("cannot remove {}", inside);
      break;
    }
    if (result = remove_tree(inside); !result) break;
  }
  ::closedir(stream);
  return result;
}

u64 hash_of(std::string_view text) {  // FNV-1a
  u64 hash = 0xcbf29ce484222325;
  for (const char c : text) hash = (hash ^ static_cast<u8>(c)) * 0x100000001b3;
  return hash;
}

}  // namespace

Result<std::string> data_dir() {
  std::string path;
  if (const char* const given = variable("SMOLVM_DATA_DIR")) {
    path = given;
  } else if (const char* const xdg = variable("XDG_DATA_HOME")) {
    path = std::string(xdg) + "/smolvm";
  } else if (const char* const home = variable("HOME")) {
    path = std::string(home) + "/.local/share/smolvm";
  } else {
    return fail("no folder for machines: neither SMOLVM_DATA_DIR, XDG_DATA_HOME nor HOME is set");
  }
  if (path[0] != '/') return fail("the folder for machines, '{}', must be an absolute path", path);
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}

std::string database_path(const std::string& data) { return data + "/machines.db"; }
std::string machine_dir(const std::string& data, const std::string& name) {
  return data + "/machines/" + name;
}

Result<> make_folders(const std::string& path) {
  for (std::size_t at = 1; at != std::string::npos;) {
    at = path.find('/', at);
    const std::string part = path.substr(0, at);
    if (::mkdir(part.c_str(), 0700) != 0 && errno != EEXIST) {
      const int number = errno;
      struct stat status{};
      if (::stat(part.c_str(), &status) == 0 &&
          S_ISDIR(status.st_mode)) {  // read-only parents answer EROFS, EACCES
        if (at != std::string::npos) ++at;
        continue;
      }
      return std::unexpected(
          Error::from_errno(number, fmt::format("cannot create the folder {}", part)));
    }
    if (at != std::string::npos) ++at;
  }
  struct stat status{};
  if (::stat(path.c_str(), &status) != 0) return fail_errno("cannot use the folder {}", path);
  if (!S_ISDIR(status.st_mode)) return fail("{} is not a folder", path);
  return {};
}

namespace {

Result<> remove_tree_once(const std::string& path, int tries) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) {
    if (errno == ENOENT) return {};
    if (errno == ENOTDIR || errno == ELOOP) {
      if (::unlink(path.c_str()) == 0 || errno == ENOENT) return {};
    }
    return fail_errno("cannot remove {}", path);
  }
  TRY(remove_below(fd, path));
  if (::rmdir(path.c_str()) == 0 || errno == ENOENT) return {};
  // Somebody put a file there meanwhile.
  if (errno == ENOTEMPTY && tries > 1) return remove_tree_once(path, tries - 1);
  return fail_errno("cannot remove {}", path);
}

}  // namespace

Result<> remove_tree(const std::string& path) { return remove_tree_once(path, kRemoveTries); }

unsigned long long disk_usage(const std::string& path) {
  struct stat status{};
  if (::lstat(path.c_str(), &status) != 0) return 0;
  unsigned long long bytes = static_cast<unsigned long long>(status.st_blocks) * 512;
  if (!S_ISDIR(status.st_mode)) return bytes;
  DIR* const stream = ::opendir(path.c_str());
  if (stream == nullptr) return bytes;
  while (const dirent* const entry = ::readdir(stream))
    if (std::strcmp(entry->d_name, ".") != 0 && std::strcmp(entry->d_name, "..") != 0)
      bytes += disk_usage(path + "/" + entry->d_name);
  ::closedir(stream);
  return bytes;
}

Result<std::string> socket_dir(const std::string& data, const std::string& name) {
  const std::string usual = machine_dir(data, name);
  constexpr std::size_t kMost = sizeof(sockaddr_un::sun_path) - 1;
  if (usual.size() + kLongestSocketName <= kMost) return usual;
  std::string runtime = fmt::format("/tmp/smolvm-{}", ::geteuid());
  if (const char* const given = variable("XDG_RUNTIME_DIR");
      given != nullptr && std::strlen(given) < 60)
    runtime = std::string(given) + "/smolvm";
  TRY(make_folders(runtime));
  struct stat status{};
  // /tmp is everyone's: a folder that another user has put there is not ours to trust.
  if (::lstat(runtime.c_str(), &status) != 0 || !S_ISDIR(status.st_mode) ||
      status.st_uid != ::geteuid() || (status.st_mode & 022) != 0)
    return fail("the folder {} for sockets belongs to someone else or is open to others", runtime);
  const std::string path = fmt::format("{}/{:016x}", runtime, hash_of(usual));
  TRY(make_folders(path));
  return path;
}

}  // namespace smol::machines

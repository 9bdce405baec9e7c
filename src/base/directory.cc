#include "base/directory.h"

#include <dirent.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <string_view>

namespace smol::base {

Result<std::vector<std::string>> names_in(const std::string& path) {
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(::opendir(path.c_str()), &::closedir);
  if (directory == nullptr) return fail_errno("cannot read the directory {}", path);
  std::vector<std::string> names;
  for (;;) {
    errno = 0;  // readdir(3): the only way to tell the end from a failure
    const dirent* const entry = ::readdir(directory.get());
    if (entry == nullptr && errno != 0) return fail_errno("cannot read the directory {}", path);
    if (entry == nullptr) break;
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace smol::base

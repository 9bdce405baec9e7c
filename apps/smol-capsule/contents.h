// This program's own file, and the container behind it.
#pragma once

#include <optional>
#include <string>

#include "base/fd.h"
#include "image/container/config.h"
#include "image/container/container.h"
#include "storage/window.h"

namespace capsule {

using namespace smol;

class Contents {
 public:
  // What smolvm hands over to a runtime without a container of its own: descriptors, -1 for none.
  struct Given {
    int container = -1, kernel = -1, init = -1;
    std::string name;
  };
  static Result<Contents> open_given(const Given& given);
  // Opens the program that runs, by /proc/self/exe or, where there is no /proc, by the name it was
  // started under. The index and the configuration are checked.
  static Result<Contents> open_self();

  const image::Container& container() const { return *container_; }
  const image::PackedConfig& config() const { return config_; }

  bool has_root() const;
  // Decoded, checked.
  Result<std::string> kernel() const;
  Result<std::string> initramfs() const;
  // The root where it lies in the file; its pieces are checked before they are read first. Valid
  // while this object lives. None: the initramfs is the root.
  Result<std::optional<storage::Window>> root(std::function<void(const Error&)> damaged) const;

 private:
  static Result<Contents> open(base::UniqueFd file, const std::string& name);
  Result<std::string> read(image::SectionKind kind, int given, const char* what) const;

  std::optional<image::Container> container_;
  image::PackedConfig config_;
  Given given_;
};

}  // namespace capsule

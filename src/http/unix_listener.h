// A listening Unix socket with a path. Only this process's user can connect (mode 0600).
#pragma once

#include <sys/types.h>

#include <string>

#include "base/fd.h"

namespace smol::http {

class UnixListener {
 public:
  // A socket that nobody listens on (its process died) is replaced; one in use, or another kind of
  // file, is an Error that names it. Non-blocking, close-on-exec.
  static Result<UnixListener> open(const std::string& path);
  UnixListener() = default;
  UnixListener(UnixListener&& other) noexcept = default;
  UnixListener& operator=(UnixListener&& other) noexcept;
  // Removes the path, unless it has become another socket's.
  ~UnixListener();

  int fd() const { return fd_.get(); }
  const std::string& path() const { return path_; }
  // The directory that the socket is in.
  std::string folder() const;

 private:
  base::UniqueFd fd_;
  std::string path_;
  dev_t device_ = 0;
  ino_t inode_ = 0;
};

}  // namespace smol::http

/* Kernel and memory file systems. */
#include <errno.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest/init/init.h"

/* Mounting is best effort: an image may lack a folder, a kernel a file system, and the program may
 * not need either. What it does need and misses, it says itself. */
static void mount_on(const char* type, const char* where, unsigned long flags, const char* data) {
  if (mount(type, where, type, flags, data) == 0 || errno != ENOENT) return;
  if (mkdir(where, 0755) == 0) mount(type, where, type, flags, data);
}

void mount_kernel_file_systems(void) {
  mount_on("proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
  mount_on("sysfs", "/sys", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
  mount_on("devtmpfs", "/dev", MS_NOSUID, "mode=0755");
  mkdir("/dev/pts", 0755);
  mkdir("/dev/shm", 01777);
  mount_on("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "mode=0620,gid=5,ptmxmode=0666");
  symlink("/proc/self/fd", "/dev/fd");
  symlink("/proc/self/fd/0", "/dev/stdin");
  symlink("/proc/self/fd/1", "/dev/stdout");
  symlink("/proc/self/fd/2", "/dev/stderr");
}

void mount_temporary_file_systems(bool writable_root) {
  mount_on("tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777");
  mount_on("tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=0755");
  /* A root that takes writes keeps its own /tmp: it may be larger than memory. */
  if (!writable_root) mount_on("tmpfs", "/tmp", MS_NOSUID | MS_NODEV, "mode=1777");
  struct stat cgroup;
  if (stat("/sys/fs/cgroup", &cgroup) == 0) {
    mount("cgroup2", "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
  }
}

bool make_folders(const char* path, struct failure* failure) {
  char part[4096];
  size_t length = strlen(path);
  if (path[0] != '/' || length >= sizeof part)
    return fail(failure, "'%.100s' is not a path from the root", path);
  for (size_t i = 1; i <= length; i++) {
    if (path[i] != '/' && path[i] != '\0') continue;
    memcpy(part, path, i);
    part[i] = '\0';
    if (mkdir(part, 0755) != 0 && errno != EEXIST)
      return fail(failure, "folder %s: %s", part, strerror(errno));
  }
  return true;
}

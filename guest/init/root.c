/* The program's root file system: from the initramfs onto a block device.
 *
 * The device is mounted under a folder of the initramfs, for an overlay together with what takes
 * the writes: a tmpfs, or a second block device that keeps them. Then the mounts of /dev, /proc and
 * /sys move over, the new root moves onto `/`, and the initramfs's files are removed, since they
 * hold memory that nobody can reach any more; unless they are themselves the overlay's lower layer.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "guest/init/init.h"

/* linux/magic.h and fs/ext4/ext4.h: known by number, as the headers for programs have it not. */
#define EXT4_SUPER_MAGIC 0xef53
#define EXT4_IOC_RESIZE_FS _IOW('f', 16, uint64_t)

#define STAGE "/.smol"
#define LOWER STAGE "/lower"
#define UPPER STAGE "/upper"
#define NEW_ROOT STAGE "/root"

enum { kRamfsMagic = 0x858458f6, kTmpfsMagic = 0x01021994 }; /* linux/magic.h */

const char* probe_file_system(const unsigned char* head, size_t size) {
  if (size >= 4 && memcmp(head, "hsqs", 4) == 0) return "squashfs";
  if (size >= 1028 && memcmp(head + 1024, "\xe2\xe1\xf5\xe0", 4) == 0) return "erofs";
  if (size >= 1082 && head[1080] == 0x53 && head[1081] == 0xef) return "ext4";
  return NULL;
}

/* Opens the device; a driver that was just loaded may need a moment to make its node. */
static int open_device(const char* device) {
  for (int tries = 0;; tries++) {
    int fd = open(device, O_RDONLY | O_CLOEXEC);
    if (fd >= 0 || errno != ENOENT || tries == 50) return fd;
    nanosleep(&(struct timespec){.tv_nsec = 10 * 1000 * 1000}, NULL);
  }
}

static bool find_type(const char* device, const char** type, struct failure* failure) {
  unsigned char head[4096];
  int fd = open_device(device);
  if (fd < 0) return fail(failure, "root device %s: %s", device, strerror(errno));
  ssize_t size = read(fd, head, sizeof head);
  int error = errno;
  close(fd);
  if (size < 0) return fail(failure, "root device %s: %s", device, strerror(error));
  if ((*type)[0] == '\0') *type = probe_file_system(head, (size_t)size);
  if (*type == NULL) {
    return fail(failure, "root device %s: neither ext4, squashfs nor erofs", device);
  }
  return true;
}

bool mount_device(const char* device, const char* type, const char* where, bool writable,
                  struct failure* failure) {
  if (!find_type(device, &type, failure)) return false;
  unsigned long flags = writable ? 0 : MS_RDONLY;
  if (mount(device, where, type, flags, NULL) == 0) return true;
  int error = errno;
  /* An ext4 that was not unmounted wants its journal replayed; a read-only disk cannot. */
  if (!writable && strcmp(type, "ext4") == 0 && mount(device, where, type, flags, "noload") == 0) {
    return true;
  }
  return fail(failure, "root device %s: mounting %s: %s", device, type, strerror(error));
}

void grow_file_system(const char* device, const char* where) {
  struct statfs status;
  uint64_t bytes = 0;
  int disk = open(device, O_RDONLY | O_CLOEXEC);
  bool known = disk >= 0 && ioctl(disk, BLKGETSIZE64, &bytes) == 0;
  if (disk >= 0) close(disk);
  int root = open(where, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (known && root >= 0 && fstatfs(root, &status) == 0 && status.f_type == EXT4_SUPER_MAGIC &&
      status.f_bsize > 0) {
    uint64_t blocks = bytes / (uint64_t)status.f_bsize;
    /* Nothing happens where the file system has that size already. */
    if (ioctl(root, EXT4_IOC_RESIZE_FS, &blocks) != 0) {
      struct failure failure;
      fail(&failure, "%s: growing the file system: %s", device, strerror(errno));
      say_failure(&failure);
    }
  }
  if (root >= 0) close(root);
}

static bool make_overlay(const struct root_config* root, struct failure* failure) {
  mkdir(UPPER, 0755);
  if (root->upper_device[0] != '\0') {
    if (!mount_device(root->upper_device, root->upper_type, UPPER, true, failure)) return false;
    grow_file_system(root->upper_device, UPPER);
  }
  bool fresh = mkdir(UPPER "/upper", 0755) == 0;
  mkdir(UPPER "/work", 0755);
  const char* lower = "/";
  if (root->device[0] != '\0') {
    lower = LOWER;
    mkdir(LOWER, 0755);
    if (!mount_device(root->device, root->type, LOWER, false, failure)) return false;
  }
  struct stat status;
  if (fresh && stat(lower, &status) == 0) chmod(UPPER "/upper", status.st_mode & 07777);
  char options[160];
  snprintf(options, sizeof options, "lowerdir=%s,upperdir=" UPPER "/upper,workdir=" UPPER "/work",
           lower);
  if (mount("overlay", NEW_ROOT, "overlay", 0, options) != 0) {
    return fail(failure, "root device %s: overlay: %s", root->device, strerror(errno));
  }
  return true;
}

/* Removes what the old root holds in memory; other file systems below it are left alone. */
static void remove_below(int folder, dev_t device, int depth) {
  DIR* entries = depth < 32 ? fdopendir(folder) : NULL;
  if (entries == NULL) {
    close(folder);
    return;
  }
  for (struct dirent* entry; (entry = readdir(entries)) != NULL;) {
    const char* name = entry->d_name;
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) continue;
    struct stat status;
    if (fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW) != 0 || status.st_dev != device)
      continue;
    if (S_ISDIR(status.st_mode)) {
      int below = openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
      if (below >= 0) remove_below(below, device, depth + 1);
      unlinkat(folder, name, AT_REMOVEDIR);
    } else {
      unlinkat(folder, name, 0);
    }
  }
  closedir(entries);
}

static void free_old_root(int old_root) {
  struct statfs kind;
  struct stat status;
  bool in_memory = fstatfs(old_root, &kind) == 0 && ((unsigned long)kind.f_type == kRamfsMagic ||
                                                     (unsigned long)kind.f_type == kTmpfsMagic);
  if (in_memory && fstat(old_root, &status) == 0) {
    remove_below(old_root, status.st_dev, 0);
  } else {
    close(old_root);
  }
}

static void move_mount_to(const char* from, const char* to) {
  if (mount(from, to, NULL, MS_MOVE, NULL) == 0) return;
  if (errno == ENOENT && mkdir(to, 0755) == 0) mount(from, to, NULL, MS_MOVE, NULL);
}

static bool switch_root(bool keep_old, struct failure* failure) {
  move_mount_to("/dev", NEW_ROOT "/dev");
  move_mount_to("/proc", NEW_ROOT "/proc");
  move_mount_to("/sys", NEW_ROOT "/sys");
  int old_root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (chdir(NEW_ROOT) != 0 || mount(".", "/", NULL, MS_MOVE, NULL) != 0 || chroot(".") != 0 ||
      chdir("/") != 0) {
    int error = errno;
    if (old_root >= 0) close(old_root);
    return fail(failure, "switching to the new root: %s", strerror(error));
  }
  if (old_root >= 0 && !keep_old) free_old_root(old_root);
  if (old_root >= 0 && keep_old) close(old_root);
  return true;
}

bool enter_root(const struct root_config* root, struct failure* failure) {
  if (root->kind == SMOL_ROOT_INITRAMFS) return true;
  mkdir(STAGE, 0755);
  if (mount("tmpfs", STAGE, "tmpfs", 0, "mode=0755") != 0) {
    return fail(failure, "a tmpfs for the root: %s", strerror(errno));
  }
  mkdir(NEW_ROOT, 0755);
  bool mounted = root->kind == SMOL_ROOT_OVERLAY
                     ? make_overlay(root, failure)
                     : mount_device(root->device, root->type, NEW_ROOT,
                                    root->kind == SMOL_ROOT_WRITABLE, failure);
  /* The file system that keeps what is written, for its end: the root's mount hides its path. */
  const char* kept = root->kind == SMOL_ROOT_WRITABLE           ? NEW_ROOT
                     : root->upper_device[0] != '\0' && mounted ? UPPER
                                                                : NULL;
  if (mounted && kept != NULL) remember_to_settle(kept);
  return mounted &&
         switch_root(root->kind == SMOL_ROOT_OVERLAY && root->device[0] == '\0', failure);
}

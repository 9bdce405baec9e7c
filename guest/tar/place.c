/* Members become files, below one folder and nowhere else.
 *
 * A member's parent is opened by openat2, which the kernel keeps below the folder: with
 * RESOLVE_IN_ROOT where links inside may be followed, else with RESOLVE_BENEATH and
 * RESOLVE_NO_SYMLINKS. The last component is always made afresh: what had the name is removed, if
 * it is no folder, and nothing is ever opened through a link.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "guest/tar/unpack.h"

enum { kChunk = 1 << 16, kMaxExtents = 1 << 18 };

struct later { /* a folder's last touches */
  struct later* next;
  struct member member; /* its path and attributes are its own */
};

/* linux/openat2.h, which the C libraries of today do not have. */
struct open_how {
  uint64_t flags, mode, resolve;
};
enum { kNoMagicLinks = 2, kNoSymlinks = 4, kBeneath = 8, kInRoot = 16 };
#ifndef SYS_openat2
#define SYS_openat2 437
#endif

static int open_below(const struct place* place, const char* path, uint64_t flags) {
  struct open_how how = {
      .flags = flags | O_CLOEXEC,
      .resolve = kNoMagicLinks | (place->options->links_inside ? kInRoot : kBeneath | kNoSymlinks)};
  int fd = -1;
  do {
    fd = (int)syscall(SYS_openat2, place->options->folder, path[0] != '\0' ? path : ".", &how,
                      sizeof how);
  } while (fd < 0 && (errno == EINTR || errno == EAGAIN)); /* EAGAIN: somebody renames meanwhile */
  return fd;
}

void report(struct place* place, const char* path, int error, const char* what) {
  place->options->problem(place->options->context, path, error, what);
}

/* A full disk will not take the next file either. */
static bool is_fatal(struct place* place, int error) {
  if (error != ENOSPC && error != EDQUOT && error != EROFS && error != EIO) return false;
  if (place->why[0] == '\0') snprintf(place->why, 200, "%s", strerror(error));
  return true;
}

/* --- Parents
 * --------------------------------------------------------------------------------------
 */

/* Opens a folder below, making what is missing. -1 with errno. */
static int open_folder(const struct place* place, const char* path) {
  int fd = open_below(place, path, O_PATH | O_DIRECTORY);
  if (fd >= 0 || errno != ENOENT || path[0] == '\0') return fd;
  int parent = open_below(place, "", O_PATH | O_DIRECTORY);
  char prefix[TAR_MAX_PATH];
  for (size_t from = 0; parent >= 0 && path[from] != '\0';) {
    size_t end = from + strcspn(path + from, "/");
    memcpy(prefix, path, end);
    prefix[end] = '\0';
    fd = open_below(place, prefix, O_PATH | O_DIRECTORY);
    if (fd < 0 && errno == ENOENT && (mkdirat(parent, prefix + from, 0755) == 0 || errno == EEXIST))
      fd = open_below(place, prefix, O_PATH | O_DIRECTORY);
    int error = errno;
    close(parent);
    errno = error;
    parent = fd;
    from = end + (path[end] == '/');
  }
  return parent;
}

/* The parent of `path`, kept open for the next member; `*name` is the last component. */
static int open_parent(struct place* place, const char* path, const char** name) {
  const char* slash = strrchr(path, '/');
  size_t length = slash != NULL ? (size_t)(slash - path) : 0;
  *name = slash != NULL ? slash + 1 : path;
  if (place->parent >= 0 && strncmp(place->parent_path, path, length) == 0 &&
      place->parent_path[length] == '\0')
    return place->parent;
  if (place->parent >= 0) close(place->parent);
  memcpy(place->parent_path, path, length);
  place->parent_path[length] = '\0';
  place->parent = open_folder(place, place->parent_path);
  return place->parent;
}

/* --- What a file gets
 * -----------------------------------------------------------------------------
 */

static bool allowed_attribute(const struct place* place, const char* name) {
  if (strncmp(name, "user.", 5) == 0) return true;
  return !place->options->distrust &&
         (strcmp(name, "security.capability") == 0 || strncmp(name, "system.posix_acl_", 17) == 0);
}

static void set_attributes(struct place* place, const struct member* member, int fd) {
  const unsigned char* at = member->attributes.bytes;
  const unsigned char* end = at != NULL ? at + member->attributes.used : at;
  while (at < end) {
    const char* name = (const char*)at;
    uint32_t size;
    at += strlen(name) + 1;
    memcpy(&size, at, sizeof size);
    at += sizeof size;
    if (allowed_attribute(place, name) && fsetxattr(fd, name, at, size, 0) != 0)
      report(place, member->path, errno, name);
    at += size;
  }
}

static mode_t mode_of(const struct place* place, const struct member* member) {
  mode_t mode = member->mode & 07777;
  if (place->options->set_mode && member->type != '5') mode = place->options->mode & 07777;
  if (place->options->distrust) mode &= 0777;
  return mode;
}

static void owner_of(const struct place* place, const struct member* member, uid_t* uid,
                     gid_t* gid) {
  *uid = place->options->set_owner ? place->options->uid : member->uid;
  *gid = place->options->set_owner ? place->options->gid : member->gid;
}

/* Owner, mode (after the owner, whose change clears bits of it), attributes, time. */
static void touch_open(struct place* place, const struct member* member, int fd) {
  uid_t uid;
  gid_t gid;
  owner_of(place, member, &uid, &gid);
  if (place->options->keep_owners && fchown(fd, uid, gid) != 0)
    report(place, member->path, errno, "chown");
  set_attributes(place, member, fd);
  if (fchmod(fd, mode_of(place, member)) != 0) report(place, member->path, errno, "chmod");
  struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, member->time};
  if (futimens(fd, times) != 0) report(place, member->path, errno, "utimens");
}

/* The same for what cannot be opened. */
static void touch_name(struct place* place, const struct member* member, int parent,
                       const char* name) {
  uid_t uid;
  gid_t gid;
  owner_of(place, member, &uid, &gid);
  if (place->options->keep_owners && fchownat(parent, name, uid, gid, AT_SYMLINK_NOFOLLOW) != 0)
    report(place, member->path, errno, "chown");
  if (member->type != '2' && fchmodat(parent, name, mode_of(place, member), 0) != 0)
    report(place, member->path, errno, "chmod");
  struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, member->time};
  if (utimensat(parent, name, times, AT_SYMLINK_NOFOLLOW) != 0)
    report(place, member->path, errno, "utimens");
}

/* Frees the name. False with errno. */
static bool remove_old(int parent, const char* name) {
  if (unlinkat(parent, name, 0) == 0 || errno == ENOENT) return true;
  if (errno == EPERM) errno = EISDIR; /* what unlink says of folders, as POSIX has it */
  return false;
}

/* --- Data
 * -----------------------------------------------------------------------------------------
 */

/* Copies `size` bytes to `offset`; with fd < 0, or after an error, only reads them. */
static bool copy_data(struct unpacker* unpacker, int fd, int64_t offset, int64_t size, int* error) {
  static unsigned char chunk[kChunk];
  while (size > 0) {
    size_t want = size < kChunk ? (size_t)size : kChunk;
    if (fd < 0 || *error != 0) return skip_data(unpacker, size);
    if (!read_data(unpacker, chunk, want)) return false;
    for (size_t done = 0; done < want;) {
      ssize_t put = pwrite(fd, chunk + done, want - done, offset + (int64_t)done);
      if (put < 0 && errno == EINTR) continue;
      if (put <= 0) {
        *error = put < 0 ? errno : EIO;
        break;
      }
      done += (size_t)put;
    }
    offset += (int64_t)want;
    size -= (int64_t)want;
  }
  return true;
}

struct map_reader {
  struct unpacker* unpacker;
  int64_t left; /* of the member's data */
  unsigned char block[TAR_BLOCK];
  size_t at;
};

static bool read_map_number(struct map_reader* map, int64_t* value) {
  *value = 0;
  for (int digits = 0;; digits++) {
    if (map->at == TAR_BLOCK) {
      if (map->left < TAR_BLOCK || !read_data(map->unpacker, map->block, TAR_BLOCK)) return false;
      map->left -= TAR_BLOCK;
      map->at = 0;
    }
    unsigned char c = map->block[map->at++];
    if (c == '\n') return digits > 0;
    if (c < '0' || c > '9' || digits == 18) return false;
    *value = *value * 10 + (c - '0');
  }
}

/* GNU format 1.0: a map of extents in front of the data. */
static bool copy_sparse(struct unpacker* unpacker, const struct member* member, int fd,
                        int* error) {
  struct map_reader map = {.unpacker = unpacker, .left = member->size, .at = TAR_BLOCK};
  int64_t count = 0;
  int64_t* numbers = NULL;
  bool sound = read_map_number(&map, &count) && count <= kMaxExtents;
  if (sound) numbers = malloc((size_t)(count * 2 + 1) * sizeof *numbers);
  sound = sound && numbers != NULL;
  for (int64_t i = 0; sound && i < count * 2; i++) sound = read_map_number(&map, &numbers[i]);
  for (int64_t i = 0; sound && i < count; i++) {
    int64_t offset = numbers[2 * i];
    int64_t size = numbers[2 * i + 1];
    sound = size <= map.left && size <= member->real_size && offset <= member->real_size - size;
    if (!sound) break;
    map.left -= size;
    if (!copy_data(unpacker, fd, offset, size, error)) {
      free(numbers);
      return false;
    }
  }
  free(numbers);
  if (!sound && *error == 0) *error = EINVAL;
  if (fd >= 0 && *error == 0 && ftruncate(fd, member->real_size) != 0) *error = errno;
  return skip_data(unpacker, map.left);
}

static bool place_file(struct unpacker* unpacker, struct place* place, struct member* member,
                       int parent, const char* name) {
  int error = 0;
  int fd = -1;
  if (parent < 0 || !remove_old(parent, name)) {
    error = errno;
  } else {
    fd = openat(parent, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) error = errno;
  }
  bool good = member->sparse ? copy_sparse(unpacker, member, fd, &error)
                             : copy_data(unpacker, fd, 0, member->size, &error);
  good = good && skip_data(unpacker, -member->size & (TAR_BLOCK - 1));
  if (fd >= 0 && error == 0 && good) touch_open(place, member, fd);
  if (fd >= 0 && close(fd) != 0 && error == 0) error = errno;
  if (error != 0) report(place, member->path, error, "file");
  return good && !is_fatal(place, error);
}

/* --- The other kinds
 * ------------------------------------------------------------------------------
 */

static int place_folder(struct place* place, struct member* member, int parent, const char* name) {
  if (name[0] == '\0') return 0; /* the folder itself */
  if (mkdirat(parent, name, 0700) != 0) {
    if (errno != EEXIST) return errno;
    struct stat there;
    int flags = place->options->links_inside ? 0 : AT_SYMLINK_NOFOLLOW;
    if (fstatat(parent, name, &there, AT_SYMLINK_NOFOLLOW) != 0) return errno;
    /* A link to a folder stays what it is, as /bin in many a root. */
    if (S_ISLNK(there.st_mode) && flags == 0) return 0;
    if (!S_ISDIR(there.st_mode)) return ENOTDIR;
  }
  struct later* later = calloc(1, sizeof *later);
  if (later == NULL) return ENOMEM;
  later->member = *member;
  later->member.path = strdup(member->path);
  later->member.link = NULL;
  later->member.attributes = (struct attribute_list){.bytes = NULL};
  if (later->member.path == NULL) {
    free(later);
    return ENOMEM;
  }
  size_t used = member->attributes.used;
  if (used > 0 && (later->member.attributes.bytes = malloc(used)) != NULL) {
    memcpy(later->member.attributes.bytes, member->attributes.bytes, used);
    later->member.attributes.used = used;
  }
  later->next = place->later;
  place->later = later;
  return 0;
}

void finish_folders(struct place* place) {
  if (place->parent >= 0) close(place->parent);
  place->parent = -1;
  while (place->later != NULL) {
    struct later* later = place->later;
    int fd = open_below(place, later->member.path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    if (fd < 0) {
      report(place, later->member.path, errno, "folder");
    } else {
      touch_open(place, &later->member, fd);
      close(fd);
    }
    place->later = later->next;
    free(later->member.attributes.bytes);
    free(later->member.path);
    free(later);
  }
}

static int place_hard_link(struct place* place, struct member* member, int parent,
                           const char* name) {
  char target[TAR_MAX_PATH];
  size_t used = 0;
  /* Cleaned as names are: the same first component, no way up. */
  const char* first = place->options->first_name;
  for (const char* at = member->link; *at != '\0';) {
    size_t length = strcspn(at, "/");
    const char* part = at;
    size_t size = length;
    at += length;
    at += strspn(at, "/");
    if (length == 0 || (length == 1 && part[0] == '.')) continue;
    if (length == 2 && part[0] == '.' && part[1] == '.') return EINVAL;
    if (used == 0 && first != NULL) {
      part = first;
      size = strlen(first);
    }
    if (used + size + 2 > sizeof target) return ENAMETOOLONG;
    if (used > 0) target[used++] = '/';
    memcpy(target + used, part, size);
    used += size;
  }
  target[used] = '\0';
  if (strcmp(target, member->path) == 0) return 0; /* it is that file already */
  char* slash = strrchr(target, '/');
  const char* last = slash != NULL ? slash + 1 : target;
  if (slash != NULL) *slash = '\0';
  int folder = open_below(place, slash != NULL ? target : "", O_PATH | O_DIRECTORY);
  if (folder < 0) return errno;
  int error = 0;
  if (!remove_old(parent, name) || linkat(folder, last, parent, name, 0) != 0) error = errno;
  close(folder);
  return error;
}

static int place_special(struct place* place, struct member* member, int parent, const char* name) {
  bool device = member->type == '3' || member->type == '4';
  if (device && place->options->distrust) return EPERM;
  if (!remove_old(parent, name)) return errno;
  int made = 0;
  if (member->type == '2') {
    made = symlinkat(member->link, parent, name);
  } else {
    mode_t kind = member->type == '3' ? S_IFCHR : member->type == '4' ? S_IFBLK : S_IFIFO;
    made = mknodat(parent, name, kind | 0600, device ? makedev(member->major, member->minor) : 0);
  }
  if (made != 0) return errno;
  touch_name(place, member, parent, name);
  return 0;
}

bool place_member(struct unpacker* unpacker, struct place* place, struct member* member) {
  const char* name = "";
  bool folder = member->type == '5' || member->path[0] == '\0';
  int parent = open_parent(place, member->path, &name);
  if (!folder && (member->type == '0' || member->type == '\0' || member->type == '7'))
    return place_file(unpacker, place, member, parent, name);
  int error = parent < 0 ? errno : 0;
  if (error == 0) {
    switch (folder ? '5' : member->type) {
      case '5':
        error = place_folder(place, member, parent, name);
        break;
      case '1':
        error = place_hard_link(place, member, parent, name);
        break;
      case '2':
      case '3':
      case '4':
      case '6':
        error = place_special(place, member, parent, name);
        break;
      default:
        error = ENOTSUP;
    }
  }
  if (error != 0) report(place, member->path, error, "cannot be made");
  return skip_data(unpacker, member->size) &&
         skip_data(unpacker, -member->size & (TAR_BLOCK - 1)) && !is_fatal(place, error);
}

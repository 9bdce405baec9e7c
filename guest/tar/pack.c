/* A tree to an archive: one pass, a pax header in front of each member that needs one. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "guest/tar/tar.h"

enum { kMaxDepth = 400, kBuffer = 1 << 16, kMaxExtents = 1 << 17, kMaxAttribute = 1 << 16 };

struct extent {
  int64_t offset, size;
};

struct records { /* of a pax header */
  char* bytes;
  size_t used, room;
};

struct seen { /* a file with several names that was packed under `path` */
  dev_t device;
  ino_t inode;
  char* path;
};

struct packer {
  const struct tar_pack_options* options;
  char* why;
  char path[TAR_MAX_PATH]; /* of the member, as the archive has it */
  struct records records;
  struct seen* seen;
  size_t seen_count, seen_room;
  struct extent* extents;
  size_t extent_count, extent_room;
  uint64_t written; /* modulo a block: padding */
  unsigned char buffer[kBuffer];
};

static bool out(struct packer* packer, const void* bytes, size_t size) {
  if (size == 0) return true;
  packer->written += size;
  if (packer->options->write(packer->options->context, bytes, size)) return true;
  snprintf(packer->why, 200, "the archive's reader went away");
  return false;
}

static bool pad(struct packer* packer) {
  static const char zeros[TAR_BLOCK];
  return out(packer, zeros, (size_t)(-packer->written & (TAR_BLOCK - 1)));
}

static void problem(struct packer* packer, int error, const char* what) {
  packer->options->problem(packer->options->context, packer->path[0] != '\0' ? packer->path : ".",
                           error, what);
}

/* --- pax records
 * ----------------------------------------------------------------------------------
 */

/* "LENGTH key=value\n", where LENGTH counts itself. */
static void add_record(struct records* records, const char* key, const void* value, size_t size) {
  size_t rest = 1 + strlen(key) + 1 + size + 1;
  size_t digits = 1;
  for (size_t total = rest + 1;; digits++, total = rest + digits) {
    size_t needed = 1;
    for (size_t left = total; left >= 10; left /= 10) needed++;
    if (needed <= digits) break;
  }
  size_t total = rest + digits;
  if (records->used + total + 1 > records->room) {
    size_t room = (records->used + total + 1) * 2;
    char* grown = realloc(records->bytes, room);
    if (grown == NULL) return; /* the member goes without; there is no memory for anything */
    records->bytes = grown;
    records->room = room;
  }
  char* at = records->bytes + records->used;
  int head = sprintf(at, "%zu %s=", total, key);
  memcpy(at + head, value, size);
  at[(size_t)head + size] = '\n';
  records->used += total;
}

static void add_text(struct records* records, const char* key, const char* format, ...) {
  char text[64];
  va_list arguments;
  va_start(arguments, format);
  int size = vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  add_record(records, key, text, (size_t)size);
}

static bool wanted_attribute(const char* name) {
  return strncmp(name, "user.", 5) == 0 || strcmp(name, "security.capability") == 0 ||
         strcmp(name, "system.posix_acl_access") == 0 ||
         strcmp(name, "system.posix_acl_default") == 0 ||
         strcmp(name, "trusted.overlay.opaque") == 0;
}

/* Only seen where an overlay's upper directory itself is packed, as builds do. Readers of layers
 * drop the kernel's own name for it, and rightly so. */
static const char* name_in_archive(const char* name) {
  return strcmp(name, "trusted.overlay.opaque") == 0 ? "user.smol.opaque" : name;
}

static void add_attributes(struct packer* packer, int fd) {
  char names[16384];
  ssize_t size = flistxattr(fd, names, sizeof names);
  for (ssize_t at = 0; at < size; at += (ssize_t)strlen(names + at) + 1) {
    const char* name = names + at;
    char key[300];
    if (!wanted_attribute(name)) continue;
    ssize_t value = fgetxattr(fd, name, packer->buffer, kMaxAttribute);
    if (value < 0) {
      problem(packer, errno, name);
    } else if (snprintf(key, sizeof key, "SCHILY.xattr.%s", name_in_archive(name)) <
               (int)sizeof key) {
      add_record(&packer->records, key, packer->buffer, (size_t)value);
    }
  }
}

/* --- Headers
 * --------------------------------------------------------------------------------------
 */

static void set_text(char* field, size_t size, const char* text) {
  size_t length = strlen(text);
  memcpy(field, text, length < size ? length : size);
}

static void seal(struct tar_header* header) {
  memcpy(header->magic, "ustar\00000", 8);
  snprintf(header->checksum, sizeof header->checksum, "%06o", tar_checksum(header));
  header->checksum[7] = ' ';
}

static bool write_records(struct packer* packer) {
  if (packer->records.used == 0) return true;
  struct tar_header header;
  memset(&header, 0, sizeof header);
  set_text(header.name, sizeof header.name, "././@PaxHeader");
  tar_set_number(header.mode, sizeof header.mode, 0644);
  tar_set_number(header.uid, sizeof header.uid, 0);
  tar_set_number(header.gid, sizeof header.gid, 0);
  tar_set_number(header.mtime, sizeof header.mtime, 0);
  tar_set_number(header.size, sizeof header.size, (int64_t)packer->records.used);
  header.type = 'x';
  seal(&header);
  return out(packer, &header, sizeof header) &&
         out(packer, packer->records.bytes, packer->records.used) && pad(packer);
}

static void set_time(struct packer* packer, struct tar_header* header, const struct stat* status) {
  int64_t seconds = status->st_mtim.tv_sec;
  long nanoseconds = status->st_mtim.tv_nsec;
  bool fits = tar_set_number(header->mtime, sizeof header->mtime, seconds);
  if (fits && nanoseconds == 0) return;
  /* A time before 1970 counts its fraction downwards. */
  bool negative = seconds < 0;
  if (negative && nanoseconds > 0) {
    seconds++;
    nanoseconds = 1000000000 - nanoseconds;
  }
  add_text(&packer->records, "mtime", "%s%lld.%09ld", negative && seconds == 0 ? "-" : "",
           (long long)seconds, nanoseconds);
}

/* `size`: of what follows the header. */
static bool write_header(struct packer* packer, const struct stat* status, char type, int64_t size,
                         const char* link, const char* sparse_name) {
  struct tar_header header;
  memset(&header, 0, sizeof header);
  struct records* records = &packer->records;
  char name[TAR_MAX_PATH + 2];
  bool folder = type == '5';
  snprintf(name, sizeof name, "%s%s", sparse_name != NULL ? sparse_name : packer->path,
           folder ? "/" : "");
  set_text(header.name, sizeof header.name, name);
  if (strlen(name) > sizeof header.name && sparse_name == NULL)
    add_record(records, "path", name, strlen(name));
  if (link != NULL) {
    set_text(header.link, sizeof header.link, link);
    if (strlen(link) > sizeof header.link) add_record(records, "linkpath", link, strlen(link));
  }
  header.type = type;
  tar_set_number(header.mode, sizeof header.mode, status->st_mode & 07777);
  if (!tar_set_number(header.uid, sizeof header.uid, status->st_uid))
    add_text(records, "uid", "%u", status->st_uid);
  if (!tar_set_number(header.gid, sizeof header.gid, status->st_gid))
    add_text(records, "gid", "%u", status->st_gid);
  if (!tar_set_number(header.size, sizeof header.size, size))
    add_text(records, "size", "%lld", (long long)size);
  if (type == '3' || type == '4') {
    tar_set_number(header.major, sizeof header.major, major(status->st_rdev));
    tar_set_number(header.minor, sizeof header.minor, minor(status->st_rdev));
  }
  set_time(packer, &header, status);
  seal(&header);
  bool good = write_records(packer) && out(packer, &header, sizeof header);
  records->used = 0;
  return good;
}

/* --- Files
 * ----------------------------------------------------------------------------------------
 */

static bool add_extent(struct packer* packer, int64_t offset, int64_t size) {
  if (packer->extent_count == packer->extent_room) {
    size_t room = packer->extent_room == 0 ? 64 : packer->extent_room * 2;
    struct extent* grown = realloc(packer->extents, room * sizeof *grown);
    if (room > kMaxExtents * 2 || grown == NULL) return false;
    packer->extents = grown;
    packer->extent_room = room;
  }
  packer->extents[packer->extent_count++] = (struct extent){offset, size};
  return true;
}

/* Where the file has data. False: it is best packed as a whole. */
static bool find_extents(struct packer* packer, int fd, const struct stat* status) {
  packer->extent_count = 0;
  if (status->st_size == 0 || status->st_blocks >= (status->st_size + 511) / 512) return false;
  for (off_t at = 0; at < status->st_size;) {
    off_t data = lseek(fd, at, SEEK_DATA);
    if (data < 0 && errno == ENXIO) break;
    if (data < 0) return false;
    off_t hole = lseek(fd, data, SEEK_HOLE);
    if (hole < 0) return false;
    if (hole > status->st_size) hole = status->st_size;
    if (data < hole &&
        (packer->extent_count == kMaxExtents || !add_extent(packer, data, hole - data)))
      return false;
    if (hole <= at) break;
    at = hole;
  }
  bool whole = packer->extent_count == 1 && packer->extents[0].offset == 0 &&
               packer->extents[0].size == status->st_size;
  /* A hole at the end is told by an extent of no bytes there. */
  return !whole && add_extent(packer, status->st_size, 0);
}

static bool copy_range(struct packer* packer, int fd, int64_t offset, int64_t size,
                       bool* short_file) {
  while (size > 0) {
    size_t chunk = size < kBuffer ? (size_t)size : kBuffer;
    ssize_t got = *short_file ? 0 : pread(fd, packer->buffer, chunk, offset);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      if (!*short_file)
        problem(packer, got < 0 ? errno : 0, "the file became shorter or unreadable");
      *short_file = true;
      memset(packer->buffer, 0, chunk);
      got = (ssize_t)chunk;
    }
    if (!out(packer, packer->buffer, (size_t)got)) return false;
    offset += got;
    size -= got;
  }
  return true;
}

static bool pack_sparse(struct packer* packer, int fd, const struct stat* status) {
  size_t room = packer->extent_count * 44 + 64;
  char* map = malloc(room + TAR_BLOCK);
  if (map == NULL) {
    snprintf(packer->why, 200, "no memory for a file's map");
    return false;
  }
  size_t used = (size_t)sprintf(map, "%zu\n", packer->extent_count);
  int64_t data = 0;
  for (size_t i = 0; i < packer->extent_count; i++) {
    const struct extent* extent = &packer->extents[i];
    used += (size_t)sprintf(map + used, "%lld\n%lld\n", (long long)extent->offset,
                            (long long)extent->size);
    data += extent->size;
  }
  size_t padded = (used + TAR_BLOCK - 1) & ~(size_t)(TAR_BLOCK - 1);
  memset(map + used, 0, padded - used);
  add_text(&packer->records, "GNU.sparse.major", "1");
  add_text(&packer->records, "GNU.sparse.minor", "0");
  add_record(&packer->records, "GNU.sparse.name", packer->path, strlen(packer->path));
  add_text(&packer->records, "GNU.sparse.realsize", "%lld", (long long)status->st_size);
  bool good = write_header(packer, status, '0', (int64_t)padded + data, NULL, "././@SparseFile") &&
              out(packer, map, padded);
  free(map);
  bool short_file = false;
  for (size_t i = 0; good && i < packer->extent_count; i++)
    good = copy_range(packer, fd, packer->extents[i].offset, packer->extents[i].size, &short_file);
  return good && pad(packer);
}

static bool pack_file(struct packer* packer, int fd, const struct stat* status) {
  add_attributes(packer, fd);
  if (find_extents(packer, fd, status)) return pack_sparse(packer, fd, status);
  bool short_file = false;
  return write_header(packer, status, '0', status->st_size, NULL, NULL) &&
         copy_range(packer, fd, 0, status->st_size, &short_file) && pad(packer);
}

/* The name under which the file was packed before; NULL: now for the first time. */
static const char* known_as(struct packer* packer, const struct stat* status) {
  for (size_t i = 0; i < packer->seen_count; i++) {
    if (packer->seen[i].inode == status->st_ino && packer->seen[i].device == status->st_dev)
      return packer->seen[i].path;
  }
  if (packer->seen_count == packer->seen_room) {
    size_t room = packer->seen_room == 0 ? 64 : packer->seen_room * 2;
    struct seen* grown = realloc(packer->seen, room * sizeof *grown);
    if (grown == NULL) return NULL;
    packer->seen = grown;
    packer->seen_room = room;
  }
  char* path = strdup(packer->path);
  if (path != NULL)
    packer->seen[packer->seen_count++] = (struct seen){status->st_dev, status->st_ino, path};
  return NULL;
}

static bool pack_link(struct packer* packer, int parent, const char* name,
                      const struct stat* status) {
  char target[TAR_MAX_PATH];
  ssize_t size = readlinkat(parent, name, target, sizeof target - 1);
  if (size < 0) {
    problem(packer, errno, "readlink");
    return true;
  }
  target[size] = '\0';
  return write_header(packer, status, '2', 0, target, NULL);
}

static bool pack_member(struct packer* packer, int parent, const char* name, int depth, bool follow,
                        bool required);

static bool pack_entries(struct packer* packer, int folder, int depth) {
  DIR* entries = fdopendir(folder);
  if (entries == NULL) {
    problem(packer, errno, "reading the folder");
    close(folder);
    return true;
  }
  size_t length = strlen(packer->path);
  bool good = true;
  for (;;) {
    errno = 0;
    struct dirent* entry = readdir(entries);
    if (entry == NULL) {
      if (errno != 0) problem(packer, errno, "reading the folder");
      break;
    }
    const char* name = entry->d_name;
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) continue;
    size_t more = strlen(name);
    if (length + 1 + more + 2 > sizeof packer->path) {
      problem(packer, ENAMETOOLONG, name);
      continue;
    }
    if (length > 0) packer->path[length] = '/';
    memcpy(packer->path + length + (length > 0), name, more + 1);
    good = pack_member(packer, dirfd(entries), name, depth + 1, false, false);
    packer->path[length] = '\0';
    if (!good) break;
  }
  closedir(entries);
  return good;
}

static bool pack_folder(struct packer* packer, int fd, const struct stat* status, int depth) {
  if (depth > kMaxDepth) {
    problem(packer, ELOOP, "too deep");
    close(fd);
    return true;
  }
  bool good = true;
  if (packer->path[0] != '\0') {
    add_attributes(packer, fd);
    good = write_header(packer, status, '5', 0, NULL, NULL);
  }
  if (!good) close(fd);
  return good && pack_entries(packer, fd, depth);
}

/* What is neither read nor entered. */
static bool pack_special(struct packer* packer, int parent, const char* name,
                         const struct stat* status) {
  switch (status->st_mode & S_IFMT) {
    case S_IFLNK:
      return pack_link(packer, parent, name, status);
    case S_IFCHR:
      return write_header(packer, status, '3', 0, NULL, NULL);
    case S_IFBLK:
      return write_header(packer, status, '4', 0, NULL, NULL);
    case S_IFIFO:
      return write_header(packer, status, '6', 0, NULL, NULL);
    default:
      return true; /* a socket */
  }
}

static bool pack_member(struct packer* packer, int parent, const char* name, int depth, bool follow,
                        bool required) {
  struct stat status;
  if (fstatat(parent, name, &status, follow ? 0 : AT_SYMLINK_NOFOLLOW) != 0) {
    int error = errno;
    if (required) snprintf(packer->why, 200, "%.150s: %s", name, strerror(error));
    if (!required && error != ENOENT) problem(packer, error, "stat");
    return !required;
  }
  if (packer->path[0] == '\0' && !S_ISDIR(status.st_mode))
    snprintf(packer->path, sizeof packer->path, "%s", name);
  if (!S_ISDIR(status.st_mode) && status.st_nlink > 1) {
    const char* known = known_as(packer, &status);
    if (known != NULL) return write_header(packer, &status, '1', 0, known, NULL);
  }
  if (!S_ISDIR(status.st_mode) && !S_ISREG(status.st_mode))
    return pack_special(packer, parent, name, &status);
  int flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | (follow ? 0 : O_NOFOLLOW);
  int fd = openat(parent, name, flags);
  struct stat opened;
  if (fd < 0 || fstat(fd, &opened) != 0 || (opened.st_mode & S_IFMT) != (status.st_mode & S_IFMT)) {
    int error = fd < 0 ? errno : ESTALE;
    if (fd >= 0) close(fd);
    if (required) snprintf(packer->why, 200, "%.150s: %s", name, strerror(error));
    if (!required) problem(packer, error, "open");
    return !required;
  }
  if (S_ISDIR(opened.st_mode)) return pack_folder(packer, fd, &opened, depth);
  bool good = pack_file(packer, fd, &opened);
  close(fd);
  return good;
}

bool tar_pack(const struct tar_pack_options* options, char* why) {
  struct packer* packer = calloc(1, sizeof *packer);
  why[0] = '\0';
  if (packer == NULL) {
    snprintf(why, 200, "no memory");
    return false;
  }
  packer->options = options;
  packer->why = why;
  if (options->member != NULL) snprintf(packer->path, sizeof packer->path, "%s", options->member);
  bool good = pack_member(packer, options->folder, options->name, 0, options->follow, true);
  static const char end[2 * TAR_BLOCK];
  good = good && out(packer, end, sizeof end);
  for (size_t i = 0; i < packer->seen_count; i++) free(packer->seen[i].path);
  free(packer->seen);
  free(packer->extents);
  free(packer->records.bytes);
  free(packer);
  return good;
}

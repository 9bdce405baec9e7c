/* Trees to tar archives and back, for both ends of `cp`: smol-init and the host.
 *
 * The problem: a stream that carries whole trees without loss (holes, owners, extended attributes,
 * hard links, times to the nanosecond, any size) and whose reader cannot be led out of its folder,
 * though its writer may be an enemy: a guest for the host, and a host's user's download for the
 * guest. The choice: pax (POSIX.1-2008, pax "Extended Header"), with GNU tar's sparse format 1.0
 * and SCHILY.xattr records, which GNU tar, bsdtar and Python read; every path is opened by openat2
 * below the folder, each last component is made afresh and never followed.
 *
 * Plain C11 over the C library; no state but in the caller's structures.
 */
#ifndef SMOL_GUEST_TAR_H
#define SMOL_GUEST_TAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* One path that could not be packed or unpacked as it should; the rest goes on. */
typedef void (*tar_problem)(void* context, const char* path, int error, const char* what);

struct tar_unpack_options {
  int folder; /* nothing outside it is touched */
  /* Replaces the first component of all names, so that `cp a b` makes b; NULL: names stay. */
  const char* first_name;
  /* Symbolic links on the way to a member are followed as if the folder were the root; without it
   * they are refused. */
  bool links_inside;
  /* The archive is not to be trusted: no device nodes, no set-user-ID, only user.* attributes. */
  bool distrust;
  bool keep_owners; /* the archive's, or `uid` and `gid` with set_owner; else the caller's */
  bool set_owner, set_mode; /* set_mode: for all that is no folder */
  uint32_t uid, gid, mode;
  /* Fills `buffer` with 1..size bytes; 0: the end; -1: the stream broke. */
  ssize_t (*read)(void* context, void* buffer, size_t size);
  tar_problem problem;
  void* context;
};

/* False when the archive is broken, its stream ends early, or the disk is full: `why` (of 200
 * bytes) says it. Members before that stay. */
bool tar_unpack(const struct tar_unpack_options* options, char* why);

struct tar_pack_options {
  int folder;       /* `name` is relative to it */
  const char* name; /* one component, or "." */
  /* The members' first component instead of `name`; NULL: none, members are what `name` holds. */
  const char* member;
  bool follow; /* `name` itself may be a symbolic link */
  /* Takes all bytes or fails. */
  bool (*write)(void* context, const void* bytes, size_t size);
  tar_problem problem;
  void* context;
};

/* False when the stream takes no more, or `name` is not there: `why` says it. Sockets are left out,
 * as by every tar. A file that shrinks meanwhile is filled up with zeros and told as a problem. */
bool tar_pack(const struct tar_pack_options* options, char* why);

/* --- Format, apart from files; used by both and by tests
 * --------------------------------------------
 */
enum { TAR_BLOCK = 512, TAR_MAX_HEADER = 1 << 20, TAR_MAX_PATH = 4096 };

struct tar_header { /* ustar, POSIX.1-1988 */
  char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type, link[100];
  char magic[8], owner[32], group[32], major[8], minor[8], prefix[155], pad[12];
};

/* Octal, or the GNU base-256 form. False: neither. */
bool tar_number(const char* field, size_t size, int64_t* value);
/* False when the value does not fit as octal. */
bool tar_set_number(char* field, size_t size, int64_t value);
uint32_t tar_checksum(const struct tar_header* header);

#ifdef __cplusplus
}
#endif
#endif

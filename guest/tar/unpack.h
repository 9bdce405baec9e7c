/* Inside tar_unpack: members as the archive tells them (unpack.c), and what they become in the file
 * system (place.c). */
#ifndef SMOL_GUEST_UNPACK_H
#define SMOL_GUEST_UNPACK_H

#include <sys/stat.h>
#include <time.h>

#include "guest/tar/tar.h"

struct attribute_list { /* "NAME\0" u32 size, value; back to back */
  unsigned char* bytes;
  size_t used;
};

struct member {
  char type;
  char* path; /* relative, without "." and ".."; of TAR_MAX_PATH bytes while it is being read */
  char* link; /* as the archive has it */
  uint32_t mode, uid, gid, major, minor;
  int64_t size;      /* of the data in the archive */
  int64_t real_size; /* of the file */
  bool sparse;
  struct timespec time;
  struct attribute_list attributes;
};

struct unpacker;

/* The data of the current member: fills `bytes` wholly. False: the stream broke. */
bool read_data(struct unpacker* unpacker, void* bytes, size_t size);
/* Passes over `size` bytes. */
bool skip_data(struct unpacker* unpacker, int64_t size);

struct place {
  const struct tar_unpack_options* options;
  char* why;
  int parent; /* O_PATH of `parent_path`; -1: none yet */
  char parent_path[TAR_MAX_PATH];
  struct later* later; /* folders whose attributes are set at the end */
};

/* Makes a member; reads all its data, whatever happens. False: the archive or the disk is at its
 * end. */
bool place_member(struct unpacker* unpacker, struct place* place, struct member* member);
void finish_folders(struct place* place);
void report(struct place* place, const char* path, int error, const char* what);

#endif

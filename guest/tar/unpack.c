/* An archive's members: ustar headers with what pax and GNU tar put in front of them.
 *
 * Everything here is the archive's word and checked before use; names are cleaned (no leading
 * slash, no "."), and a name with ".." is refused. Data is never held but for the block at hand.
 */
#include "guest/tar/unpack.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { kBuffer = 1 << 16 };

struct overrides { /* of the next member */
  char *path, *link;
  bool has_size, has_uid, has_gid, has_time;
  int64_t size;
  uint32_t uid, gid;
  struct timespec time;
  int sparse_major, sparse_minor;
  bool old_sparse;
  char* sparse_name;
  int64_t real_size;
  struct attribute_list attributes;
};

struct unpacker {
  struct place place;
  struct member member;
  struct overrides next;
  char path[TAR_MAX_PATH], link[TAR_MAX_PATH]; /* the member's */
  bool ended;                                  /* the stream */
  size_t start, used;
  unsigned char buffer[kBuffer];
};

static bool broken(struct unpacker* unpacker, const char* what) {
  if (unpacker->place.why[0] == '\0') snprintf(unpacker->place.why, 200, "the archive %s", what);
  return false;
}

/* --- The stream
 * -----------------------------------------------------------------------------------
 */

static bool fill(struct unpacker* unpacker) {
  if (unpacker->ended) return false;
  const struct tar_unpack_options* options = unpacker->place.options;
  ssize_t got = options->read(options->context, unpacker->buffer, sizeof unpacker->buffer);
  if (got <= 0) unpacker->ended = true;
  if (got < 0) return broken(unpacker, "cannot be read to its end");
  unpacker->start = 0;
  unpacker->used = (size_t)got;
  return got > 0;
}

bool read_data(struct unpacker* unpacker, void* bytes, size_t size) {
  unsigned char* to = bytes;
  while (size > 0) {
    if (unpacker->used == 0 && !fill(unpacker)) return broken(unpacker, "ends early");
    size_t chunk = size < unpacker->used ? size : unpacker->used;
    memcpy(to, unpacker->buffer + unpacker->start, chunk);
    to += chunk;
    size -= chunk;
    unpacker->start += chunk;
    unpacker->used -= chunk;
  }
  return true;
}

bool skip_data(struct unpacker* unpacker, int64_t size) {
  while (size > 0) {
    if (unpacker->used == 0 && !fill(unpacker)) return broken(unpacker, "ends early");
    size_t chunk = size < (int64_t)unpacker->used ? (size_t)size : unpacker->used;
    size -= (int64_t)chunk;
    unpacker->start += chunk;
    unpacker->used -= chunk;
  }
  return true;
}

/* The payload of a header of headers, with a zero byte behind it. */
static char* read_text(struct unpacker* unpacker, int64_t size) {
  if (size < 0 || size > TAR_MAX_HEADER) {
    broken(unpacker, "has an extended header that is too long");
    return NULL;
  }
  char* text = malloc((size_t)size + 1);
  if (text == NULL) {
    broken(unpacker, "needs more memory than there is");
    return NULL;
  }
  if (!read_data(unpacker, text, (size_t)size) || !skip_data(unpacker, -size & (TAR_BLOCK - 1))) {
    free(text);
    return NULL;
  }
  text[size] = '\0';
  return text;
}

/* --- pax
 * ------------------------------------------------------------------------------------------
 */

static void forget(struct overrides* next) {
  free(next->path);
  free(next->link);
  free(next->sparse_name);
  free(next->attributes.bytes);
  memset(next, 0, sizeof *next);
}

static bool take_text(char** field, const char* value, size_t size) {
  char* copy = malloc(size + 1);
  if (copy == NULL) return false;
  memcpy(copy, value, size);
  copy[size] = '\0';
  free(*field);
  *field = copy;
  return strlen(copy) == size;
}

static bool take_integer(const char* value, int64_t* number) {
  char* end = NULL;
  errno = 0;
  long long parsed = strtoll(value, &end, 10);
  *number = parsed;
  return end != value && (*end == '\0' || *end == '\n') && errno == 0;
}

/* "-1234.5678": seconds and their fraction. */
static bool take_time(const char* value, struct timespec* time) {
  char* end = NULL;
  errno = 0;
  long long seconds = strtoll(value, &end, 10);
  if (end == value || errno != 0) return false;
  long nanoseconds = 0;
  if (*end == '.') {
    long unit = 100000000;
    for (end++; *end >= '0' && *end <= '9'; end++, unit /= 10) nanoseconds += (*end - '0') * unit;
  }
  if (value[0] == '-' && nanoseconds > 0) {
    seconds--;
    nanoseconds = 1000000000 - nanoseconds;
  }
  time->tv_sec = seconds;
  time->tv_nsec = nanoseconds;
  return *end == '\0' || *end == '\n';
}

static bool take_attribute(struct attribute_list* list, const char* name, const char* value,
                           size_t size) {
  size_t length = strlen(name) + 1;
  uint32_t stored = (uint32_t)size;
  unsigned char* grown = realloc(list->bytes, list->used + length + sizeof stored + size);
  if (grown == NULL) return false;
  list->bytes = grown;
  memcpy(grown + list->used, name, length);
  memcpy(grown + list->used + length, &stored, sizeof stored);
  memcpy(grown + list->used + length + sizeof stored, value, size);
  list->used += length + sizeof stored + size;
  return true;
}

static bool take_id(const char* value, uint32_t* id, bool* has) {
  int64_t number = 0;
  if (!take_integer(value, &number) || number < 0 || number >= UINT32_MAX) return false;
  *id = (uint32_t)number;
  *has = true;
  return true;
}

static bool take_sparse(struct overrides* next, const char* key, const char* value, size_t size) {
  int64_t number = 0;
  if (strcmp(key, "name") == 0) return take_text(&next->sparse_name, value, size);
  if (!take_integer(value, &number)) {
    next->old_sparse = true; /* GNU.sparse.map of format 0.1 */
    return true;
  }
  if (strcmp(key, "major") == 0) next->sparse_major = (int)(number & 0xff);
  if (strcmp(key, "minor") == 0) next->sparse_minor = (int)(number & 0xff);
  if (strcmp(key, "realsize") == 0) next->real_size = number;
  if (strcmp(key, "size") == 0 || strcmp(key, "numblocks") == 0 || strcmp(key, "map") == 0)
    next->old_sparse = true;
  return true;
}

/* One "key=value"; unknown keys are no error. */
static bool take_record(struct overrides* next, const char* key, const char* value, size_t size) {
  static const char attribute[] = "SCHILY.xattr.";
  static const char sparse[] = "GNU.sparse.";
  if (strcmp(key, "path") == 0) return take_text(&next->path, value, size);
  if (strcmp(key, "linkpath") == 0) return take_text(&next->link, value, size);
  if (strcmp(key, "size") == 0) return next->has_size = take_integer(value, &next->size);
  if (strcmp(key, "uid") == 0) return take_id(value, &next->uid, &next->has_uid);
  if (strcmp(key, "gid") == 0) return take_id(value, &next->gid, &next->has_gid);
  if (strcmp(key, "mtime") == 0) return next->has_time = take_time(value, &next->time);
  if (strncmp(key, attribute, sizeof attribute - 1) == 0)
    return take_attribute(&next->attributes, key + sizeof attribute - 1, value, size);
  if (strncmp(key, sparse, sizeof sparse - 1) == 0)
    return take_sparse(next, key + sizeof sparse - 1, value, size);
  return true;
}

static bool take_records(struct unpacker* unpacker, char* text, size_t size) {
  for (size_t at = 0; at < size;) {
    char* end = NULL;
    if (text[at] < '1' || text[at] > '9') return broken(unpacker, "has a broken pax header");
    unsigned long length = strtoul(text + at, &end, 10);
    size_t head = (size_t)(end - (text + at)) + 1;
    if (*end != ' ' || length > size - at || length <= head + 1 || text[at + length - 1] != '\n')
      return broken(unpacker, "has a broken pax header");
    char* key = end + 1;
    char* equals = memchr(key, '=', length - head - 1);
    if (equals == NULL) return broken(unpacker, "has a broken pax header");
    *equals = '\0';
    char* value = equals + 1;
    size_t value_size = (size_t)(text + at + length - 1 - value);
    value[value_size] = '\0';
    if (!take_record(&unpacker->next, key, value, value_size))
      return broken(unpacker, "has a pax record that makes no sense");
    at += length;
  }
  return true;
}

/* --- Members
 * --------------------------------------------------------------------------------------
 */

/* Cleans a name into `path`; replaces the first component where asked. False: not one of ours. */
static bool clean_name(const char* name, const char* first, char* path) {
  size_t used = 0;
  bool at_first = true;
  for (const char* at = name; *at != '\0';) {
    size_t length = strcspn(at, "/");
    const char* part = at;
    size_t size = length;
    at += length;
    at += strspn(at, "/");
    if (length == 0 || (length == 1 && part[0] == '.')) continue;
    if (length == 2 && part[0] == '.' && part[1] == '.') return false;
    if (at_first && first != NULL) {
      part = first;
      size = strlen(first);
    }
    at_first = false;
    if (used + size + 2 > TAR_MAX_PATH) return false;
    if (used > 0) path[used++] = '/';
    memcpy(path + used, part, size);
    used += size;
  }
  path[used] = '\0';
  return true;
}

static void header_name(const struct tar_header* header, char* name) {
  char base[101] = {0};
  memcpy(base, header->name, sizeof header->name);
  char prefix[156] = {0};
  bool ustar = memcmp(header->magic, "ustar", 6) == 0; /* GNU's magic has other things there */
  if (ustar) memcpy(prefix, header->prefix, sizeof header->prefix);
  snprintf(name, TAR_MAX_PATH, "%s%s%s", prefix, prefix[0] != '\0' ? "/" : "", base);
}

static bool take_header(struct unpacker* unpacker, const struct tar_header* header) {
  struct member* member = &unpacker->member;
  const struct overrides* next = &unpacker->next;
  int64_t mode, uid, gid, size, time, major_number, minor_number;
  if (!tar_number(header->mode, sizeof header->mode, &mode) ||
      !tar_number(header->uid, sizeof header->uid, &uid) ||
      !tar_number(header->gid, sizeof header->gid, &gid) ||
      !tar_number(header->size, sizeof header->size, &size) ||
      !tar_number(header->mtime, sizeof header->mtime, &time))
    return broken(unpacker, "has a header with a broken number");
  bool device = header->type == '3' || header->type == '4';
  major_number = minor_number = 0;
  if (device && (!tar_number(header->major, sizeof header->major, &major_number) ||
                 !tar_number(header->minor, sizeof header->minor, &minor_number)))
    return broken(unpacker, "has a device with a broken number");
  member->type = header->type;
  member->mode = (uint32_t)mode & 07777;
  member->uid = next->has_uid ? next->uid : (uint32_t)uid;
  member->gid = next->has_gid ? next->gid : (uint32_t)gid;
  member->size = next->has_size ? next->size : size;
  member->time = next->has_time ? next->time : (struct timespec){.tv_sec = time};
  member->major = (uint32_t)major_number;
  member->minor = (uint32_t)minor_number;
  member->sparse = next->sparse_major == 1 && next->sparse_minor == 0;
  member->real_size = member->sparse ? next->real_size : member->size;
  member->attributes = next->attributes;
  if (member->size < 0 || member->real_size < 0 || member->size > INT64_MAX - TAR_BLOCK)
    return broken(unpacker, "has a member of negative size");
  return true;
}

/* Names; the rest of the member is passed over when they are not to be had. */
static bool take_names(struct unpacker* unpacker, const struct tar_header* header, bool* usable) {
  struct member* member = &unpacker->member;
  const struct overrides* next = &unpacker->next;
  struct place* place = &unpacker->place;
  char name[TAR_MAX_PATH];
  header_name(header, name);
  const char* full = next->sparse_name != NULL ? next->sparse_name
                     : next->path != NULL      ? next->path
                                               : name;
  char link[101] = {0};
  memcpy(link, header->link, sizeof header->link);
  const char* target = next->link != NULL ? next->link : link;
  *usable = true;
  const char* reason = NULL;
  if (!clean_name(full, place->options->first_name, member->path)) {
    reason = "the name leads out of the folder, or is too long";
  } else if (strlen(target) >= TAR_MAX_PATH) {
    reason = "the link's target is too long";
  } else if (next->old_sparse && !member->sparse) {
    reason = "a sparse file of an old format";
  }
  if (reason == NULL) {
    snprintf(member->link, TAR_MAX_PATH, "%s", target);
    return true;
  }
  *usable = false;
  report(place, full, EINVAL, reason);
  return skip_data(unpacker, member->size) && skip_data(unpacker, -member->size & (TAR_BLOCK - 1));
}

static bool take_gnu_name(struct unpacker* unpacker, char type, char* text) {
  char** field = type == 'L' ? &unpacker->next.path : &unpacker->next.link;
  free(*field);
  *field = text;
  return true;
}

/* What describes the next member. `*was_one` tells whether the header was such. */
static bool take_extension(struct unpacker* unpacker, char type, bool* was_one) {
  *was_one = type == 'x' || type == 'g' || type == 'L' || type == 'K';
  if (!*was_one) return true;
  int64_t size = unpacker->member.size;
  char* text = read_text(unpacker, size);
  if (text == NULL) return false;
  if (type == 'L' || type == 'K') return take_gnu_name(unpacker, type, text);
  /* A global header would hold for all that follow: nothing that matters here is ever in one. */
  bool good = type == 'g' || take_records(unpacker, text, (size_t)size);
  free(text);
  return good;
}

static bool all_zero(const struct tar_header* header) {
  const unsigned char* bytes = (const unsigned char*)header;
  for (size_t i = 0; i < sizeof *header; i++) {
    if (bytes[i] != 0) return false;
  }
  return true;
}

/* One header and its data. `*over`: the archive's end. */
static bool take_one(struct unpacker* unpacker, bool* over) {
  struct tar_header header;
  *over = unpacker->used == 0 && !fill(unpacker);
  if (*over) return unpacker->place.why[0] == '\0';
  if (!read_data(unpacker, &header, sizeof header)) return false;
  *over = all_zero(&header);
  if (*over) return true;
  int64_t sum = 0;
  if (!tar_number(header.checksum, sizeof header.checksum, &sum) || sum != tar_checksum(&header))
    return broken(unpacker, "has a header with a wrong checksum (or is no tar archive)");
  bool extension =
      header.type == 'x' || header.type == 'g' || header.type == 'L' || header.type == 'K';
  /* An extension's own size is its header's, whatever the one before it said of the member. */
  struct overrides kept = unpacker->next;
  if (extension) unpacker->next = (struct overrides){.path = NULL};
  bool good = take_header(unpacker, &header);
  unpacker->next = kept;
  bool was_one = false;
  if (!good || !take_extension(unpacker, header.type, &was_one)) return false;
  if (was_one) return true;
  bool usable = false;
  good = take_names(unpacker, &header, &usable) &&
         (!usable || place_member(unpacker, &unpacker->place, &unpacker->member));
  forget(&unpacker->next);
  return good;
}

bool tar_unpack(const struct tar_unpack_options* options, char* why) {
  struct unpacker* unpacker = calloc(1, sizeof *unpacker);
  why[0] = '\0';
  if (unpacker == NULL) {
    snprintf(why, 200, "no memory");
    return false;
  }
  unpacker->place = (struct place){.options = options, .why = why, .parent = -1};
  unpacker->member.path = unpacker->path;
  unpacker->member.link = unpacker->link;
  bool over = false;
  bool good = true;
  while (good && !over) good = take_one(unpacker, &over);
  /* What pads the archive to a record is read too, so that its writer is not cut off. */
  while (good && !unpacker->ended) fill(unpacker);
  finish_folders(&unpacker->place);
  forget(&unpacker->next);
  free(unpacker);
  return good;
}

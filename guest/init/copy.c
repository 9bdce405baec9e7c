/* COPY_IN and COPY_OUT: tar streams in DATA frames, what failed in PROBLEM frames between them. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest/init/init.h"
#include "guest/tar/tar.h"

struct copy {
  int host;
  uint32_t problems;
  struct failure failure;
  size_t left; /* in: of the DATA frame at hand */
  bool at_end; /* in: DATA_END has come */
  size_t used; /* out: of `buffer` */
  unsigned char buffer[SMOL_MAX_DATA];
};

static struct copy the_copy;

static bool parse_copy(const char* payload, size_t size, uint32_t known, struct smol_copy* request,
                       const char** path, struct failure* failure) {
  if (size < sizeof *request + 2 || payload[size - 1] != '\0')
    return fail(failure, "protocol: a copy of %zu bytes", size);
  memcpy(request, payload, sizeof *request);
  *path = payload + sizeof *request;
  if ((request->flags & ~known) != 0)
    return fail(failure, "protocol: a copy with unknown flags %#x", request->flags);
  if ((*path)[0] != '/' || strlen(*path) + 1 != size - sizeof *request || size > 4096)
    return fail(failure, "protocol: a copy's path must be one path from the root");
  return true;
}

static void tell_problem(void* context, const char* path, int error, const char* what) {
  struct copy* copy = context;
  char payload[1024];
  int32_t number = error;
  memcpy(payload, &number, sizeof number);
  int length = snprintf(payload + 4, sizeof payload - 4, "%.700s: %.200s%s%s", path, what,
                        error != 0 ? ": " : "", error != 0 ? strerror(error) : "");
  if (length >= (int)sizeof payload - 4) length = (int)sizeof payload - 5;
  copy->problems++;
  send_frame(copy->host, SMOL_FRAME_PROBLEM, payload, 4 + (size_t)length);
}

/* --- In
 * -------------------------------------------------------------------------------------------
 */

static ssize_t read_archive(void* context, void* buffer, size_t size) {
  struct copy* copy = context;
  while (copy->left == 0) {
    struct smol_frame_header header;
    if (copy->at_end) return 0;
    if (!receive_exactly(copy->host, &header, sizeof header) ||
        !check_header(&header, &copy->failure))
      return -1;
    copy->at_end = header.type == SMOL_FRAME_DATA_END && header.length == 0;
    if (!copy->at_end && header.type != SMOL_FRAME_DATA) return -1;
    copy->left = header.length;
  }
  ssize_t got = recv(copy->host, buffer, size < copy->left ? size : copy->left, 0);
  if (got > 0) copy->left -= (size_t)got;
  return got > 0 ? got : -1;
}

/* Where the members go: the folder, and the name that replaces their first component (or NULL). */
static int find_target(const struct smol_copy* request, char* path, const char** name,
                       struct failure* failure) {
  *name = NULL;
  if ((request->flags & SMOL_COPY_INTO) != 0 && !make_folders(path, failure)) return -1;
  int folder = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (folder >= 0) return folder;
  size_t length = strlen(path);
  if (errno != ENOENT && errno != ENOTDIR) {
    fail(failure, "%.300s: %s", path, strerror(errno));
    return -1;
  }
  if (path[length - 1] == '/') {
    fail(failure, "%.300s: no such folder", path);
    return -1;
  }
  char* slash = strrchr(path, '/');
  *name = slash + 1;
  *slash = '\0';
  folder = open(slash == path ? "/" : path, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) fail(failure, "%.300s: %s", slash == path ? "/" : path, strerror(errno));
  return folder;
}

/* A connection that is closed with bytes unread may lose what was said last. */
static void drain(struct copy* copy) {
  while (recv(copy->host, copy->buffer, sizeof copy->buffer, 0) > 0) {
  }
}

void serve_copy_in(int host, char* payload, size_t size) {
  struct copy* copy = &the_copy;
  copy->host = host;
  struct smol_copy request;
  const char* path = NULL;
  const char* name = NULL;
  const uint32_t known = SMOL_COPY_INTO | SMOL_COPY_OWNER | SMOL_COPY_MODE;
  int folder = -1;
  if (parse_copy(payload, size, known, &request, &path, &copy->failure))
    folder = find_target(&request, (char*)(uintptr_t)path, &name, &copy->failure);
  if (folder < 0) {
    send_done(host, ENOENT, 0, copy->failure.text);
    return drain(copy);
  }
  struct tar_unpack_options options = {.folder = folder,
                                       .first_name = name,
                                       .links_inside = true,
                                       .keep_owners = true,
                                       .set_owner = (request.flags & SMOL_COPY_OWNER) != 0,
                                       .set_mode = (request.flags & SMOL_COPY_MODE) != 0,
                                       .uid = request.uid,
                                       .gid = request.gid,
                                       .mode = request.mode,
                                       .read = read_archive,
                                       .problem = tell_problem,
                                       .context = copy};
  char why[200];
  umask(0);
  bool good = tar_unpack(&options, why);
  const char* text = copy->failure.text[0] != '\0' ? copy->failure.text : why;
  send_done(host, good ? 0 : EIO, copy->problems, good ? "" : text);
  if (!good) drain(copy);
}

/* --- Out
 * ------------------------------------------------------------------------------------------
 */

static bool flush(struct copy* copy) {
  size_t used = copy->used;
  copy->used = 0;
  return used == 0 || send_frame(copy->host, SMOL_FRAME_DATA, copy->buffer, used);
}

static bool write_archive(void* context, const void* bytes, size_t size) {
  struct copy* copy = context;
  const unsigned char* from = bytes;
  while (size > 0) {
    size_t chunk = sizeof copy->buffer - copy->used;
    if (chunk > size) chunk = size;
    memcpy(copy->buffer + copy->used, from, chunk);
    copy->used += chunk;
    from += chunk;
    size -= chunk;
    if (copy->used == sizeof copy->buffer && !flush(copy)) return false;
  }
  return true;
}

void serve_copy_out(int host, char* payload, size_t size) {
  struct copy* copy = &the_copy;
  copy->host = host;
  struct smol_copy request;
  const char* given = NULL;
  const uint32_t known = SMOL_COPY_FOLLOW | SMOL_COPY_CONTENTS;
  if (!parse_copy(payload, size, known, &request, &given, &copy->failure)) {
    send_done(host, EPROTO, 0, copy->failure.text);
    return;
  }
  char* path = (char*)(uintptr_t)given;
  for (size_t length = strlen(path); length > 1 && path[length - 1] == '/';) path[--length] = '\0';
  char* slash = strrchr(path, '/');
  const char* name = slash + 1;
  bool whole = name[0] == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
  const char* parent = whole ? path : slash == path ? "/" : path;
  if (!whole && slash != path) *slash = '\0';
  int folder = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) {
    fail(&copy->failure, "%.300s: %s", parent, strerror(errno));
    send_done(host, errno, 0, copy->failure.text);
    return;
  }
  bool contents = whole || (request.flags & SMOL_COPY_CONTENTS) != 0;
  struct tar_pack_options options = {.folder = folder,
                                     .name = whole ? "." : name,
                                     .member = contents ? NULL : name,
                                     .follow = (request.flags & SMOL_COPY_FOLLOW) != 0 || contents,
                                     .write = write_archive,
                                     .problem = tell_problem,
                                     .context = copy};
  char why[200];
  bool good = tar_pack(&options, why) && flush(copy);
  if (good) send_frame(host, SMOL_FRAME_DATA_END, NULL, 0);
  send_done(host, good ? 0 : EIO, copy->problems, why);
}

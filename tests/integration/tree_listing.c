// usage: tree_listing DIR: everything below DIR, a line each, in the order of names: kind and mode,
// owner, size, time, device, links, a link's target, extended attributes, and a digest of the
// contents (of large files: of their first, middle and last 4 KiB). The same program runs on the
// host and in a guest, and the two outputs are compared.
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

static unsigned long long mix(unsigned long long hash, const unsigned char *bytes, long count) {
  for (long i = 0; i < count; i++) hash = (hash ^ bytes[i]) * 0x100000001b3ULL;
  return hash;
}

static unsigned long long digest(const char *path, long long size) {
  unsigned long long hash = 0xcbf29ce484222325ULL;
  static unsigned char buffer[65536];
  int fd = open(path, O_RDONLY);
  if (fd < 0) return 0;
  if (size > 64 << 20) {
    long long at[3] = {0, size / 2, size - 4096};
    for (int i = 0; i < 3; i++) hash = mix(hash, buffer, pread(fd, buffer, 4096, at[i]));
  } else {
    long got;
    while ((got = read(fd, buffer, sizeof(buffer))) > 0) hash = mix(hash, buffer, got);
    if (got < 0) hash = 0;
  }
  close(fd);
  return hash;
}

static int by_text(const void *a, const void *b) {
  return strcmp(*(char *const *)a, *(char *const *)b);
}

static void attributes(const char *path) {
  static char names[65536], value[65536];
  long size = llistxattr(path, names, sizeof(names)), count = 0;
  char *sorted[64];
  for (long at = 0; at < size && count < 64; at += (long)strlen(names + at) + 1)
    sorted[count++] = names + at;
  qsort(sorted, (size_t)count, sizeof(*sorted), by_text);
  for (long i = 0; i < count; i++) {
    if (strncmp(sorted[i], "user.", 5) != 0 && strncmp(sorted[i], "security.cap", 12) != 0)
      continue;
    long got = lgetxattr(path, sorted[i], value, sizeof(value));
    printf(" %s=%ld:%llx", sorted[i], got, mix(1, (unsigned char *)value, got));
  }
}

static int walk(const char *path) {
  struct dirent **names;
  int count = scandir(path, &names, NULL, NULL), failed = 0;
  if (count < 0) {
    perror(path);
    return 1;
  }
  char **sorted = calloc((size_t)count + 1, sizeof(*sorted));
  for (int i = 0; i < count; i++) sorted[i] = names[i]->d_name;
  qsort(sorted, (size_t)count, sizeof(*sorted), by_text);
  for (int i = 0; i < count; i++) {
    struct stat status;
    char target[8192] = "";
    if (strcmp(sorted[i], ".") == 0 || strcmp(sorted[i], "..") == 0) continue;
    char *below = malloc(strlen(path) + strlen(sorted[i]) + 2);
    sprintf(below, "%s/%s", path, sorted[i]);
    if (lstat(below, &status) != 0) {
      perror(below);
      failed = 1;
      continue;
    }
    if (S_ISLNK(status.st_mode) && readlink(below, target, sizeof(target) - 1) < 0)
      perror(below), failed = 1;
    printf("%s %o %u:%u %lld %lld.%09ld %u:%u x%ld '%s' %llx", below, status.st_mode, status.st_uid,
           status.st_gid, S_ISDIR(status.st_mode) ? 0LL : (long long)status.st_size,
           (long long)status.st_mtim.tv_sec, status.st_mtim.tv_nsec, major(status.st_rdev),
           minor(status.st_rdev), S_ISDIR(status.st_mode) ? 1L : (long)status.st_nlink, target,
           S_ISREG(status.st_mode) ? digest(below, status.st_size) : 0);
    attributes(below);
    putchar('\n');
    if (S_ISDIR(status.st_mode)) failed |= walk(below);
    free(below);
  }
  free(sorted);
  return failed;
}

int main(int argc, char **argv) {
  if (argc != 2 || chdir(argv[1]) != 0) return 2;
  return walk(".");
}

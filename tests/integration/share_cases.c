// Runs in a guest, in a directory of a shared file system: what POSIX and Linux say of files, case
// by case, errors included. usage: share_cases root|user   (root: the host keeps the guest's
// owners). A line for each case that goes wrong; last "cases N, wrong M".
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static int cases, wrong, owners;

static void check(int good, const char *what, int line) {
  ++cases;
  if (good) return;
  ++wrong;
  printf("WRONG line %d: %s (errno %d %s)\n", line, what, errno, strerror(errno));
}
#define OK(call) (errno = 0, check((call) >= 0, #call, __LINE__))
#define IS(condition) (errno = 0, check((condition), #condition, __LINE__))
#define FAILS(number, call) \
  (errno = 0, check((call) < 0 && errno == (number), #call " is " #number, __LINE__))

static void make(const char *path, const char *content) {
  int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0644);
  OK(fd);
  OK(write(fd, content, strlen(content)));
  OK(close(fd));
}

static int holds(const char *path, const char *content) {
  char buffer[256] = {0};
  int fd = open(path, O_RDONLY);
  if (fd < 0) return 0;
  ssize_t size = read(fd, buffer, sizeof(buffer) - 1);
  close(fd);
  return size == (ssize_t)strlen(content) && memcmp(buffer, content, (size_t)size) == 0;
}

static mode_t mode_of(const char *path) {
  struct stat status;
  return lstat(path, &status) != 0 ? 0 : status.st_mode;
}

static nlink_t links_of(const char *path) {
  struct stat status;
  return lstat(path, &status) != 0 ? 0 : status.st_nlink;
}

static off_t size_of(const char *path) {
  struct stat status;
  return lstat(path, &status) != 0 ? -1 : status.st_size;
}

// A child of another user runs body; its wrong cases are counted.
#define AS_USER(id, ...)                                                                      \
  do {                                                                                        \
    fflush(stdout);                                                                           \
    pid_t child = fork();                                                                     \
    if (child == 0) {                                                                         \
      wrong = 0;                                                                              \
      if (setgid(id) != 0 || setuid(id) != 0) _exit(100);                                     \
      __VA_ARGS__;                                                                            \
      fflush(stdout);                                                                         \
      _exit(wrong);                                                                           \
    }                                                                                         \
    int status;                                                                               \
    waitpid(child, &status, 0);                                                               \
    check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the other user's cases", __LINE__); \
  } while (0)

static void opening(void) {
  char name[300];
  make("f", "content");
  OK(mkdir("d", 0755));
  OK(symlink("f", "l"));
  OK(symlink("loop", "loop"));
  FAILS(EEXIST, open("f", O_CREAT | O_EXCL | O_RDWR, 0644));
  FAILS(EEXIST, open("l", O_CREAT | O_EXCL | O_RDWR, 0644));
  FAILS(ENOENT, open("none", O_RDONLY));
  FAILS(ENOENT, open("none/f", O_CREAT | O_RDWR, 0644));
  FAILS(ENOTDIR, open("f/x", O_RDONLY));
  FAILS(ENOTDIR, open("f/x", O_CREAT | O_RDWR, 0644));
  FAILS(ENOTDIR, open("f", O_RDONLY | O_DIRECTORY));
  FAILS(EISDIR, open("d", O_WRONLY));
  FAILS(EISDIR, open("d", O_CREAT | O_RDWR, 0644));
  FAILS(ELOOP, open("l", O_RDONLY | O_NOFOLLOW));
  FAILS(ELOOP, open("loop", O_RDONLY));
  FAILS(EOPNOTSUPP, open(".", O_TMPFILE | O_RDWR, 0644));
  memset(name, 'n', sizeof(name));
  name[256] = 0;
  FAILS(ENAMETOOLONG, open(name, O_CREAT | O_RDWR, 0644));
  name[255] = 0;
  OK(close(open(name, O_CREAT | O_RDWR, 0644)));
  OK(unlink(name));
  for (mode_t mode = 0; mode <= 0777; mode += 0111) {
    OK(close(open("m", O_CREAT | O_EXCL | O_RDWR,
                  mode)));  // even where the mode would not let it be opened again
    IS(mode_of("m") == (S_IFREG | mode));
    OK(unlink("m"));
  }
  umask(027);
  OK(close(open("m", O_CREAT | O_RDWR, 0666)));
  OK(mkdir("md", 0777));
  umask(0);
  IS(mode_of("m") == (S_IFREG | 0640) && mode_of("md") == (S_IFDIR | 0750));
  OK(unlink("m"));
  OK(rmdir("md"));
  OK(close(open("f", O_WRONLY | O_TRUNC)));
  IS(size_of("f") == 0);
  int a = open("f", O_WRONLY | O_APPEND), b = open("f", O_WRONLY | O_APPEND),
      c = open("f", O_RDONLY);
  OK(write(a, "one", 3));
  OK(write(b, "two", 3));
  OK(write(a, "three", 5));
  IS(holds("f", "onetwothree"));
  FAILS(EBADF, write(c, "x", 1));
  char byte;
  FAILS(EBADF, read(a, &byte, 1));
  close(a), close(b), close(c);
  OK(unlink("l"));
  OK(unlink("loop"));
  OK(rmdir("d"));
  OK(unlink("f"));
}

static void directories(void) {
  char path[8192] = "";
  OK(mkdir("d", 0700));
  IS(mode_of("d") == (S_IFDIR | 0700));
  FAILS(EEXIST, mkdir("d", 0700));
  make("d/f", "x");
  FAILS(EEXIST, mkdir("d/f", 0700));
  FAILS(ENOTDIR, mkdir("d/f/x", 0700));
  FAILS(ENOENT, mkdir("none/x", 0700));
  FAILS(ENOTEMPTY, rmdir("d"));
  FAILS(ENOTDIR, rmdir("d/f"));
  FAILS(ENOENT, rmdir("none"));
  FAILS(EINVAL, rmdir("d/."));
  FAILS(ENOTEMPTY, rmdir("d/.."));
  FAILS(EISDIR, unlink("d"));
  OK(unlink("d/f"));
  IS(links_of("d") >= 1);
  OK(rmdir("d"));
  // Deep: longer than one path may be.
  int start = open(".", O_RDONLY | O_DIRECTORY);
  for (int i = 0; i < 60; ++i) {
    memset(path, 'a' + i % 26, 200);
    path[200] = 0;
    OK(mkdir(path, 0755));
    OK(chdir(path));
  }
  make("deep", "down");
  IS(holds("deep", "down"));
  OK(unlink("deep"));
  for (int i = 59; i >= 0; --i) {
    OK(chdir(".."));
    memset(path, 'a' + i % 26, 200);
    path[200] = 0;
    OK(rmdir(path));
  }
  struct stat here, there;
  OK(fstat(start, &here));
  OK(stat(".", &there));
  IS(here.st_ino == there.st_ino);
  close(start);
}

static int count_entries(const char *path, int remove) {
  int count = 0;
  DIR *directory = opendir(path);
  if (directory == NULL) return -1;
  for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    ++count;
    if (remove) unlinkat(dirfd(directory), entry->d_name, 0);
  }
  closedir(directory);
  return count;
}

static void listing(void) {
  char name[300];
  OK(mkdir("many", 0755));
  for (int i = 0; i < 1500; ++i) {
    snprintf(name, sizeof(name), "many/%d-%.*s", i, i % 150,
             "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
             "xxxxxxxxxxxxxxxxxxxxxxx"
             "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
             "xxxxxxxxxxx");
    close(open(name, O_CREAT | O_WRONLY, 0644));
  }
  IS(count_entries("many", 0) == 1500);
  DIR *directory = opendir("many");
  long places[200];
  char names[200][300];
  for (int i = 0; i < 200; ++i) {
    places[i] = telldir(directory);
    strcpy(names[i], readdir(directory)->d_name);
  }
  for (int i = 199; i >= 0; i -= 7) {
    seekdir(directory, places[i]);
    struct dirent *entry = readdir(directory);
    IS(entry != NULL && strcmp(entry->d_name, names[i]) == 0);
  }
  rewinddir(directory);
  IS(strcmp(readdir(directory)->d_name, names[0]) == 0);
  closedir(directory);
  for (int left = 0; left < 10 && count_entries("many", 1) != 0; ++left) {
  }
  IS(count_entries("many", 0) == 0);
  OK(rmdir("many"));
}

static void links(void) {
  char target[5000];
  make("f", "content");
  OK(mkdir("d", 0755));
  OK(link("f", "d/g"));
  IS(links_of("f") == 2 && holds("d/g", "content"));
  struct stat one, two;
  OK(stat("f", &one));
  OK(stat("d/g", &two));
  IS(one.st_ino == two.st_ino && one.st_dev == two.st_dev);
  FAILS(EEXIST, link("f", "d/g"));
  FAILS(ENOENT, link("none", "x"));
  FAILS(ENOENT, link("f", "none/x"));
  FAILS(ENOTDIR, link("f", "f/x"));
  FAILS(EPERM, link("d", "x"));
  OK(unlink("f"));
  IS(links_of("d/g") == 1);
  OK(symlink("../d/g", "d/l"));
  IS(holds("d/l", "content") && S_ISLNK(mode_of("d/l")));
  IS(readlink("d/l", target, sizeof(target)) == 6 && memcmp(target, "../d/g", 6) == 0);
  FAILS(EINVAL, readlink("d/g", target, sizeof(target)));
  FAILS(EEXIST, symlink("x", "d/l"));
  FAILS(ENOENT, symlink("x", "none/l"));
  FAILS(ENOENT, symlink("", "x"));
  OK(symlink("nowhere", "dangling"));
  FAILS(ENOENT, open("dangling", O_RDONLY));
  OK(close(open("dangling", O_CREAT | O_WRONLY, 0644)));  // makes its target
  IS(size_of("nowhere") == 0);
  OK(unlink("nowhere"));
  OK(linkat(AT_FDCWD, "dangling", AT_FDCWD, "dangling2", 0));
  IS(S_ISLNK(mode_of("dangling2")));
  OK(unlink("dangling2"));
  OK(unlink("dangling"));
  memset(target, 't', sizeof(target));
  target[4095] = 0;
  OK(symlink(target, "long"));
  IS(readlink("long", target, sizeof(target)) == 4095);
  OK(unlink("long"));
  OK(unlink("d/l"));
  OK(unlink("d/g"));
  OK(rmdir("d"));
}

static void renames(void) {
  make("a", "a");
  make("b", "b");
  OK(mkdir("d", 0755));
  OK(mkdir("e", 0755));
  OK(rename("a", "b"));
  IS(holds("b", "a"));
  FAILS(ENOENT, rename("a", "c"));
  FAILS(ENOENT, rename("b", "none/c"));
  FAILS(EISDIR, rename("b", "d"));
  FAILS(ENOTDIR, rename("d", "b"));
  FAILS(EINVAL, rename("d", "d/x"));
  FAILS(ENOTDIR, rename("b", "b/x"));
  OK(rename("b", "d/b"));
  errno = 0;
  check(rename("e", "d") < 0 && (errno == ENOTEMPTY || errno == EEXIST),
        "rename onto a full directory", __LINE__);
  OK(rename("d", "e"));
  IS(holds("e/b", "a"));
  OK(link("e/b", "e/c"));
  OK(rename("e/b", "e/c"));  // the same file: nothing happens
  IS(links_of("e/b") == 2);
  int fd = open("e/b", O_RDWR);
  OK(rename("e/b", "e/\xe5\x90\x8d"));
  OK(write(fd, "A", 1));
  IS(holds("e/\xe5\x90\x8d", "A"));
  close(fd);
  OK(unlink("e/\xe5\x90\x8d"));
  OK(unlink("e/c"));
  OK(rmdir("e"));
}

static void unlinking(void) {
  make("f", "content");
  int fd = open("f", O_RDWR);
  OK(unlink("f"));
  FAILS(ENOENT, unlink("f"));
  FAILS(ENOENT, open("f", O_RDONLY));
  char buffer[16];
  IS(pread(fd, buffer, 7, 0) == 7);
  OK(pwrite(fd, "more", 4, 7));
  IS(pread(fd, buffer, 16, 0) == 11);
  struct stat status;
  OK(fstat(fd, &status));
  IS(status.st_size == 11);
  OK(ftruncate(fd, 3));
  OK(fchmod(fd, 0600));
  OK(fsync(fd));
  OK(fstat(fd, &status));
  IS(status.st_size == 3);
  OK(close(fd));
}

static void modes(void) {
  make("f", "content");
  OK(mkdir("d", 0755));
  for (mode_t mode = 0; mode <= 0777; mode += 0101) {
    OK(chmod("f", mode));
    IS(mode_of("f") == (S_IFREG | mode));
  }
  OK(chmod("d", 01777));
  IS(mode_of("d") == (S_IFDIR | 01777));
  FAILS(ENOENT, chmod("none", 0644));
  FAILS(ENOTDIR, chmod("f/x", 0644));
  OK(chmod("f", 06755));
  IS(mode_of("f") == (S_IFREG | (owners ? 06755 : 0755)));
  OK(chmod("f", 0600));
  OK(chmod("d", 0755));
  if (owners) {
    OK(chown("f", 1000, 1000));
    struct stat status;
    OK(stat("f", &status));
    IS(status.st_uid == 1000 && status.st_gid == 1000);
    OK(chown("f", (uid_t)-1, 2000));
    OK(stat("f", &status));
    IS(status.st_uid == 1000 && status.st_gid == 2000);
    OK(symlink("f", "l"));
    OK(lchown("l", 7, 8));
    OK(lstat("l", &status));
    IS(status.st_uid == 7 && status.st_gid == 8);
    OK(unlink("l"));
    OK(chmod("f", 0640));
    AS_USER(1001, {
      FAILS(EACCES, open("f", O_RDONLY));
      FAILS(EPERM, chmod("f", 0777));
      FAILS(EPERM, chown("f", 1001, 1001));
      FAILS(EACCES, mkdir("d/x", 0755));
      FAILS(EACCES, rename("f", "d/f"));
      FAILS(EACCES, truncate("f", 0));
      FAILS(EPERM, utimensat(AT_FDCWD, "f", (struct timespec[2]){{1, 0}, {1, 0}}, 0));
    });
    OK(chmod("d", 01777));
    AS_USER(1001, {
      make("d/mine", "x");
      OK(mkdir("d/folder", 0700));
      OK(symlink("x", "d/link"));
      OK(mkfifo("d/fifo", 0600));
    });
    const char *names[] = {"d/mine", "d/folder", "d/link", "d/fifo"};
    for (int i = 0; i < 4; ++i) {
      OK(lstat(names[i], &status));
      IS(status.st_uid == 1001 && status.st_gid == 1001);
    }
    AS_USER(1002, {
      FAILS(EPERM, unlink("d/mine"));  // sticky
      FAILS(EACCES, open("d/mine", O_WRONLY));
      IS(holds("d/mine", "x"));
    });
    AS_USER(1001, {
      OK(unlink("d/mine"));
      OK(rmdir("d/folder"));
      OK(unlink("d/link"));
      OK(unlink("d/fifo"));
    });
    OK(chown("d", 0, 3000));
    OK(chmod("d", 02777));
    AS_USER(1001, {
      make("d/inherits", "x");
      OK(mkdir("d/sub", 0755));
    });
    OK(stat("d/inherits", &status));
    IS(status.st_gid == 3000);
    IS((mode_of("d/sub") & S_ISGID) != 0);
    OK(unlink("d/inherits"));
    OK(rmdir("d/sub"));
  }
  OK(unlink("f"));
  OK(rmdir("d"));
}

static void sizes(void) {
  make("f", "content");
  OK(truncate("f", 3));
  IS(holds("f", "con"));
  OK(truncate("f", 6));
  struct stat status;
  char buffer[8];
  int fd = open("f", O_RDWR);
  IS(pread(fd, buffer, 8, 0) == 6 && memcmp(buffer, "con\0\0\0", 6) == 0);
  OK(pwrite(fd, "far", 3, 5LL << 30));
  OK(fstat(fd, &status));
  IS(status.st_size == (5LL << 30) + 3);
  IS(status.st_blocks < 1000);
  IS(pread(fd, buffer, 8, 5LL << 30) == 3 && memcmp(buffer, "far", 3) == 0);
  IS(pread(fd, buffer, 8, 1LL << 32) == 8 && memcmp(buffer, "\0\0\0\0\0\0\0\0", 8) == 0);
  IS(lseek(fd, 0, SEEK_END) == (5LL << 30) + 3);
  OK(ftruncate(fd, 6LL << 30));
  OK(ftruncate(fd, 0));
  FAILS(EINVAL, ftruncate(fd, -1));
  IS(pread(fd, buffer, 8, 0) == 0);
  close(fd);
  FAILS(ENOENT, truncate("none", 0));
  FAILS(EISDIR, truncate(".", 0));
  fd = open("f", O_RDONLY);
  FAILS(EINVAL, ftruncate(fd, 0));
  close(fd);
  // Larger than a message, unaligned, through every size around the places where pages and messages
  // end.
  size_t size = 1500000;
  unsigned char *data = malloc(size), *back = malloc(size);
  for (size_t i = 0; i < size; ++i) data[i] = (unsigned char)(i * 31 + (i >> 9));
  fd = open("f", O_RDWR);
  IS(pwrite(fd, data, size, 1) == (ssize_t)size);
  IS(pread(fd, back, size, 1) == (ssize_t)size && memcmp(data, back, size) == 0);
  for (size_t length = 1; length < 600000; length = length * 3 + 1) {
    IS(pread(fd, back, length, 77) == (ssize_t)length && memcmp(data + 76, back, length) == 0);
    IS(pwrite(fd, data, length, 12345) == (ssize_t)length);
    IS(pread(fd, back, length, 12345) == (ssize_t)length && memcmp(data, back, length) == 0);
    IS(pwrite(fd, data + 12344, length, 12345) == (ssize_t)length);
  }
  IS(pread(fd, back, size, 1) == (ssize_t)size && memcmp(data, back, size) == 0);
  unsigned char *map = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
  IS(map != MAP_FAILED && memcmp(map + 1, data, size - 1) == 0);
  munmap(map, size);
  close(fd);
  free(data), free(back);
  OK(unlink("f"));
}

static void times(void) {
  make("f", "x");
  struct stat status, later;
  OK(utimensat(AT_FDCWD, "f", (struct timespec[2]){{1000000000, 123456789}, {1, 999999999}}, 0));
  OK(stat("f", &status));
  // Linux' 9P client cuts what is set to whole seconds, and knows no time before 1970.
  IS(status.st_atim.tv_sec == 1000000000);
  IS(status.st_mtim.tv_sec == 1);
  OK(utimensat(AT_FDCWD, "f", (struct timespec[2]){{0, UTIME_OMIT}, {5, 0}}, 0));
  OK(stat("f", &status));
  IS(status.st_atim.tv_sec == 1000000000 && status.st_mtim.tv_sec == 5);
  OK(utimensat(AT_FDCWD, "f", (struct timespec[2]){{6, 0}, {0, UTIME_NOW}}, 0));
  OK(stat("f", &status));
  IS(status.st_atim.tv_sec == 6 && status.st_mtim.tv_sec > 1000000000);
  OK(utimensat(AT_FDCWD, "f", NULL, 0));
  OK(symlink("f", "l"));
  OK(utimensat(AT_FDCWD, "l", (struct timespec[2]){{7, 0}, {8, 0}}, AT_SYMLINK_NOFOLLOW));
  OK(lstat("l", &status));
  IS(status.st_mtim.tv_sec == 8);
  FAILS(ENOENT, utimensat(AT_FDCWD, "none", NULL, 0));
  OK(unlink("l"));
  OK(stat("f", &status));
  usleep(20000);
  OK(chmod("f", 0600));
  OK(stat("f", &later));
  IS(later.st_ctim.tv_sec > status.st_ctim.tv_sec ||
     later.st_ctim.tv_nsec > status.st_ctim.tv_nsec);
  OK(unlink("f"));
}

static void specials(void) {
  OK(mkfifo("p", 0640));
  IS(mode_of("p") == (S_IFIFO | 0640));
  FAILS(EEXIST, mkfifo("p", 0640));
  FAILS(ENXIO, open("p", O_WRONLY | O_NONBLOCK));
  pid_t child = fork();
  if (child == 0) {
    int fd = open("p", O_WRONLY);
    _exit(write(fd, "through", 7) == 7 ? 0 : 1);
  }
  int fd = open("p", O_RDONLY), status;
  char buffer[16];
  IS(read(fd, buffer, 16) == 7);
  close(fd);
  waitpid(child, &status, 0);
  IS(status == 0);
  OK(unlink("p"));
  FAILS(EPERM, mknod("c", S_IFCHR | 0600, makedev(1, 3)));
  FAILS(EPERM, mknod("b", S_IFBLK | 0600, makedev(7, 0)));
  OK(mknod("r", S_IFREG | 0600, 0));
  OK(unlink("r"));
  struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "sock"};
  int listener = socket(AF_UNIX, SOCK_STREAM, 0), client = socket(AF_UNIX, SOCK_STREAM, 0);
  OK(bind(listener, (struct sockaddr *)&address, sizeof(address)));
  IS(S_ISSOCK(mode_of("sock")));
  OK(listen(listener, 1));
  OK(connect(client, (struct sockaddr *)&address, sizeof(address)));
  close(client), close(listener);
  OK(unlink("sock"));
  struct statvfs figures;
  OK(statvfs(".", &figures));
  IS(figures.f_namemax == 255 && figures.f_bsize > 0);
}

static int child_says(int (*question)(void)) {
  pid_t child = fork();
  if (child == 0) _exit(question());
  int status;
  waitpid(child, &status, 0);
  return WEXITSTATUS(status);
}

static int may_lock(void) {
  int fd = open("f", O_RDWR);
  struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 5, .l_len = 10};
  return fcntl(fd, F_SETLK, &range) == 0;
}

static int may_flock(void) {
  int fd = open("f", O_RDONLY);
  return flock(fd, LOCK_EX | LOCK_NB) == 0;
}

static void locks(void) {
  make("f", "content");
  int fd = open("f", O_RDWR);
  struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 6};
  IS(child_says(may_lock));
  OK(fcntl(fd, F_SETLK, &range));
  IS(!child_says(may_lock));
  range.l_len = 5;
  range.l_type = F_UNLCK;
  range.l_start = 3;
  OK(fcntl(fd, F_SETLK, &range));
  IS(child_says(may_lock));
  range.l_type = F_RDLCK;
  range.l_len = 0;
  OK(fcntl(fd, F_SETLKW, &range));
  IS(!child_says(may_lock));
  OK(close(fd));
  IS(child_says(may_lock));
  fd = open("f", O_RDONLY);
  OK(flock(fd, LOCK_EX));
  IS(!child_says(may_flock));
  OK(flock(fd, LOCK_UN));
  IS(child_says(may_flock));
  close(fd);
  OK(unlink("f"));
}

static void attributes(void) {
  char buffer[256];
  make("f", "x");
  if (setxattr("f", "user.one", "value", 5, 0) != 0 && errno == EOPNOTSUPP) {
    OK(unlink("f"));
    return;  // not on this host's file system
  }
  IS(getxattr("f", "user.one", buffer, sizeof(buffer)) == 5 && memcmp(buffer, "value", 5) == 0);
  IS(getxattr("f", "user.one", NULL, 0) == 5);
  FAILS(ERANGE, getxattr("f", "user.one", buffer, 3));
  FAILS(ENODATA, getxattr("f", "user.two", buffer, sizeof(buffer)));
  FAILS(EEXIST, setxattr("f", "user.one", "x", 1, XATTR_CREATE));
  FAILS(ENODATA, setxattr("f", "user.two", "x", 1, XATTR_REPLACE));
  OK(setxattr("f", "user.two", "22", 2, XATTR_CREATE));
  IS(listxattr("f", buffer, sizeof(buffer)) == 18);
  OK(removexattr("f", "user.one"));
  FAILS(ENODATA, getxattr("f", "user.one", buffer, sizeof(buffer)));
  FAILS(ENODATA, removexattr("f", "user.one"));
  FAILS(EOPNOTSUPP, setxattr("f", "trusted.x", "x", 1, 0));
  OK(unlink("f"));
}

static void together(void) {
  char name[64];
  fflush(stdout);
  for (int process = 0; process < 4; ++process) {
    if (fork() != 0) continue;
    wrong = 0;
    for (int i = 0; i < 60; ++i) {
      snprintf(name, sizeof(name), "t%d-%d", process, i);
      make(name, name);
      if (!holds(name, name)) _exit(1);
      char other[64];
      snprintf(other, sizeof(other), "r%d-%d", process, i);
      if (rename(name, other) != 0 || !holds(other, name) || unlink(other) != 0) _exit(2);
    }
    _exit(wrong != 0);
  }
  for (int process = 0; process < 4; ++process) {
    int status;
    wait(&status);
    check(status == 0, "processes side by side", __LINE__);
  }
}

int main(int count, char **words) {
  owners = count > 1 && strcmp(words[1], "root") == 0;
  umask(0);
  OK(mkdir("cases", 0777));
  OK(chdir("cases"));
  void (*const parts[])(void) = {opening,   directories, listing, links, renames,
                                 unlinking, modes,       sizes,   times, specials,
                                 locks,     attributes,  together};
  for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); ++i) {
    parts[i]();
    if (count_entries(".", 0) != 0) {
      check(0, "a part cleans up", (int)i);
      count_entries(".", 1);
    }
  }
  OK(chdir(".."));
  OK(rmdir("cases"));
  printf("cases %d, wrong %d\n", cases, wrong);
  return wrong != 0;
}

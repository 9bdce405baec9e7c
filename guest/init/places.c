/* Things that get a place in the guest's tree: shares, disks, secrets, forwarded sockets. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "guest/init/init.h"

/* --- Shares and disks
 * -----------------------------------------------------------------------------
 */

static bool is_mount_point(const char* path, const char* parent) {
  struct stat here;
  struct stat above;
  return stat(path, &here) == 0 && stat(parent, &above) == 0 && here.st_dev != above.st_dev;
}

/* The one 9p device is mounted once; requests in several children may come at the same time. */
static bool mount_all_shares(struct failure* failure) {
  if (is_mount_point(SMOL_SHARES_FOLDER, "/run/smol")) return true;
  if (!make_folders(SMOL_SHARES_FOLDER, failure)) return false;
  int lock = open("/run/smol/lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (lock < 0 || flock(lock, LOCK_EX) != 0) {
    if (lock >= 0) close(lock);
    return fail(failure, "/run/smol/lock: %s", strerror(errno));
  }
  bool good = is_mount_point(SMOL_SHARES_FOLDER, "/run/smol") ||
              mount(SMOL_SHARE_TAG, SMOL_SHARES_FOLDER, "9p", MS_NODEV,
                    "trans=virtio,version=9p2000.L,cache=none,msize=524288") == 0 ||
              fail(failure, "mounting the shared folders (9p): %s", strerror(errno));
  close(lock);
  return good;
}

bool mount_share(const char* tag, const char* path, bool read_only, struct failure* failure) {
  if (tag[0] == '\0' || strchr(tag, '/') != NULL || strcmp(tag, ".") == 0 || strcmp(tag, "..") == 0)
    return fail(failure, "share '%.100s': not a tag", tag);
  if (path[0] != '/' || path[1] == '\0')
    return fail(failure, "share %.100s: '%.300s' is no place for a mount", tag, path);
  char from[4096];
  if (snprintf(from, sizeof from, SMOL_SHARES_FOLDER "/%s", tag) >= (int)sizeof from)
    return fail(failure, "share '%.100s...': too long", tag);
  if (!mount_all_shares(failure) || !make_folders(path, failure)) return false;
  if (mount(from, path, NULL, MS_BIND, NULL) != 0)
    return fail(failure, "share %s at %.300s: %s", tag, path, strerror(errno));
  if (read_only &&
      mount(NULL, path, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NODEV, NULL) != 0) {
    int error = errno;
    umount2(path, MNT_DETACH);
    return fail(failure, "share %s at %.300s, read-only: %s", tag, path, strerror(error));
  }
  return true;
}

bool unmount_path(const char* path, struct failure* failure) {
  if (path[0] != '/' || path[1] == '\0')
    return fail(failure, "'%.100s' is not a mount to remove", path);
  return umount2(path, UMOUNT_NOFOLLOW) == 0 ||
         fail(failure, "unmounting %.300s: %s", path, strerror(errno));
}

bool mount_disk(const char* device, const char* type, const char* path, bool read_only,
                struct failure* failure) {
  if (!make_folders(path, failure) || !mount_device(device, type, path, !read_only, failure))
    return false;
  if (!read_only) {
    grow_file_system(device, path);
    remember_to_settle(path);
  }
  return true;
}

/* --- Secrets
 * --------------------------------------------------------------------------------------
 */

static bool write_all(int fd, const char* data, size_t size) {
  while (size > 0) {
    ssize_t put = write(fd, data, size);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return false;
    data += put;
    size -= (size_t)put;
  }
  return true;
}

bool write_secret(const char* name, const char* owner, const char* value, size_t size,
                  struct failure* failure) {
  struct user user;
  if (!find_user(owner, &user, failure)) return false;
  if (!make_folders(SMOL_SECRETS_FOLDER, failure)) return false;
  if (!is_mount_point(SMOL_SECRETS_FOLDER, "/run") &&
      mount("tmpfs", SMOL_SECRETS_FOLDER, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0755") !=
          0)
    return fail(failure, "a tmpfs at " SMOL_SECRETS_FOLDER ": %s", strerror(errno));
  char path[4096];
  char fresh[4096];
  if (snprintf(path, sizeof path, SMOL_SECRETS_FOLDER "/%s", name) >= 4000)
    return fail(failure, "secret '%.40s...': too long a name", name);
  snprintf(fresh, sizeof fresh, SMOL_SECRETS_FOLDER "/.new-%d", (int)getpid());
  unlink(fresh);
  int fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0400);
  bool good = fd >= 0 && fchown(fd, user.uid, user.gid) == 0 && write_all(fd, value, size);
  int error = errno;
  if (fd >= 0) close(fd);
  if (good && rename(fresh, path) == 0) return true;
  if (good) error = errno;
  unlink(fresh);
  return fail(failure, "secret '%.100s': %s", name, strerror(error));
}

/* --- Forwarded sockets
 * ----------------------------------------------------------------------------
 */

struct flow {
  int from, to;
  size_t start, used;
  bool over; /* `from` has ended, and `to` was told */
  char bytes[32768];
};

/* Moves what can be moved; false when nothing more can come of it. */
static void move_bytes(struct flow* flow) {
  if (flow->over) return;
  if (flow->used == 0) {
    ssize_t size = recv(flow->from, flow->bytes, sizeof flow->bytes, MSG_DONTWAIT);
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (size <= 0) {
      flow->over = true;
      shutdown(flow->to, SHUT_WR);
      return;
    }
    flow->start = 0;
    flow->used = (size_t)size;
  }
  ssize_t put = send(flow->to, flow->bytes + flow->start, flow->used, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (put < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (put < 0) {
    flow->over = true;
    shutdown(flow->from, SHUT_RD);
    return;
  }
  flow->start += (size_t)put;
  flow->used -= (size_t)put;
}

static short wanted(const struct flow* in, const struct flow* out) {
  bool read = !in->over && in->used == 0;
  bool write = !out->over && out->used > 0;
  return (short)((read ? POLLIN : 0) | (write ? POLLOUT : 0));
}

void relay(int one, int other) {
  static struct flow flows[2];
  flows[0].from = flows[1].to = one;
  flows[0].to = flows[1].from = other;
  while (!flows[0].over || !flows[1].over) {
    struct pollfd fds[2] = {{.fd = one, .events = wanted(&flows[0], &flows[1])},
                            {.fd = other, .events = wanted(&flows[1], &flows[0])}};
    /* Nothing wanted of one side: only its death would be told, again and again. */
    for (int i = 0; i < 2; i++) {
      if (fds[i].events == 0) fds[i].fd = -1;
    }
    if (poll(fds, 2, -1) < 0 && errno != EINTR) return;
    move_bytes(&flows[0]);
    move_bytes(&flows[1]);
  }
}

_Noreturn static void forward_connections(int listener, uint32_t port) {
  struct sigaction no_zombies = {.sa_handler = SIG_IGN, .sa_flags = SA_NOCLDWAIT};
  sigaction(SIGCHLD, &no_zombies, NULL);
  signal(SIGTERM, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  for (;;) {
    int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (client < 0) {
      if (errno != EINTR && errno != ECONNABORTED) usleep(100 * 1000);
      continue;
    }
    if (fork() == 0) {
      close(listener);
      int host = connect_port(port);
      if (host >= 0) relay(client, host);
      _exit(host >= 0 ? 0 : 1);
    }
    close(client);
  }
}

static int listen_at(const char* path, const struct user* user, struct failure* failure) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  size_t length = strlen(path);
  const char* slash = strrchr(path, '/');
  char folder[sizeof address.sun_path];
  if (slash == NULL || path[0] != '/' || length >= sizeof address.sun_path) {
    fail(failure, "socket '%.150s': not a path, or too long", path);
    return -1;
  }
  memcpy(folder, path, (size_t)(slash - path));
  folder[slash - path] = '\0';
  if (slash != path && !make_folders(folder, failure)) return -1;
  memcpy(address.sun_path, path, length);
  struct stat there;
  if (lstat(path, &there) == 0 && S_ISSOCK(there.st_mode)) unlink(path);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd >= 0 && bind(fd, (struct sockaddr*)&address, sizeof address) == 0 &&
      chmod(path, 0600) == 0 && chown(path, user->uid, user->gid) == 0 && listen(fd, 64) == 0)
    return fd;
  fail(failure, "socket %s: %s", path, strerror(errno));
  if (fd >= 0) close(fd);
  return -1;
}

bool forward_socket(const char* path, const char* port, const char* owner,
                    struct failure* failure) {
  char* end = NULL;
  unsigned long number = strtoul(port, &end, 10);
  if (port[0] < '0' || port[0] > '9' || *end != '\0' || number == 0 || number >= UINT32_MAX)
    return fail(failure, "socket %.150s: '%.20s' is not a port", path, port);
  struct user user;
  if (!find_user(owner, &user, failure)) return false;
  int listener = listen_at(path, &user, failure);
  if (listener < 0) return false;
  pid_t pid = fork();
  if (pid == 0) {
    setsid();
    /* The request's connection must not stay open here. */
    for (int fd = 3; fd < 256; fd++) {
      if (fd != listener) close(fd);
    }
    forward_connections(listener, (uint32_t)number);
  }
  close(listener);
  return pid > 0 || fail(failure, "socket %s: %s", path, strerror(errno));
}

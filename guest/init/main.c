/* PID 1: the order of things. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "guest/init/init.h"

enum { kAfVsock = 40 }; /* AF_VSOCK; musl has no linux/vm_sockets.h, whose struct stands below */
struct vsock_address {
  sa_family_t family;
  uint16_t reserved;
  uint32_t port;
  uint32_t cid;
  uint8_t flags;
  uint8_t zero[3];
};

int connect_host(bool* no_device) {
  *no_device = false;
  /* Tests hand over a socket instead: init then runs in a PID namespace, without a machine. */
  const char* handed_over = getenv("SMOL_HOST_FD");
  if (handed_over != NULL) return atoi(handed_over);
  /* A host that is about to listen, or a driver that is still probing, gets a second. */
  for (int tries = 0; tries < 50; tries++) {
    int fd = socket(kAfVsock, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
      *no_device = true;
      return -1;
    }
    struct vsock_address address = {
        .family = kAfVsock, .port = SMOL_RUN_PORT, .cid = SMOL_HOST_CID};
    if (connect(fd, (struct sockaddr*)&address, sizeof address) == 0) return fd;
    int error = errno;
    close(fd);
    if (error == ENODEV) {
      *no_device = true;
      return -1;
    }
    nanosleep(&(struct timespec){.tv_nsec = 20 * 1000 * 1000}, NULL);
  }
  return -1;
}

/* Without a host: a program on the console, for people who boot the kernel by hand and for tests of
 * it. */
static void run_on_console(const char* path, char** arguments) {
  mount_temporary_file_systems(false);
  set_up_host("");
  pid_t pid = fork();
  if (pid == 0) {
    setsid();
    int console = open("/dev/console", O_RDWR);
    if (console >= 0) {
      ioctl(console, TIOCSCTTY, 1);
      for (int fd = 0; fd < 3; fd++) dup2(console, fd);
      if (console > 2) close(console);
    }
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    set_oom_score("0");
    setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 0);
    setenv("HOME", "/root", 1);
    execv(path, arguments);
    dprintf(2, "smol-init: cannot run '%s': %s\n", path, strerror(errno));
    _exit(127);
  }
  int status = 0;
  for (pid_t ended; pid > 0 && (ended = wait(&status)) != pid;) {
    if (ended < 0 && errno != EINTR) break;
  }
  char line[64];
  if (WIFSIGNALED(status)) {
    snprintf(line, sizeof line, "ended by signal %d", WTERMSIG(status));
  } else {
    snprintf(line, sizeof line, "ended with status %d", WEXITSTATUS(status));
  }
  say(line);
}

static void run(char** arguments) {
  struct failure failure = {.text = ""};
  if (!load_modules(&failure)) say(failure.text); /* the host hears of it by what is missing then */
  static char shell[] = "/bin/sh";
  const char* wanted = kernel_argument("smol.exec");
  static char program[512];
  snprintf(program, sizeof program, "%s", wanted != NULL && wanted[0] != '\0' ? wanted : shell);
  bool no_device = false;
  int host = wanted == NULL ? connect_host(&no_device) : -1;
  if (host >= 0) {
    run_session(host);
  } else if (wanted != NULL || no_device) {
    arguments[0] = program;
    run_on_console(program, arguments);
  } else {
    say("the host does not answer on vsock port 1024");
  }
}

int main(int argc, char** argv) {
  if (getpid() != 1) {
    dprintf(2, "smol-init: this is the first program of a virtual machine, not a command\n");
    return 1;
  }
  write_boot_marker();
  mount_kernel_file_systems();
  open_console();
  if (kernel_argument("smol.hello") != NULL) say("ready");
  signal(SIGPIPE, SIG_IGN);
  set_oom_score("-1000"); /* programs get theirs back after fork */
  static char* no_arguments[] = {NULL, NULL};
  run(argc > 0 ? argv : no_arguments);
  kill_everything();
  end_machine();
}

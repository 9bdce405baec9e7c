/* PID 1: the order of things. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest/init/init.h"

/* Without a host: a program on the console, for people who boot the kernel by hand and for tests of
 * it. */
static void run_on_console(const char* path, char** arguments) {
  mount_temporary_file_systems(false);
  set_up_loopback();
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

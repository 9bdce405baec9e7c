/* Starting the program: its streams, its user, its directory, and the exact reason when it does not
 * start.
 *
 * Reasons come back through a pipe that a good exec closes: an empty pipe means that the program
 * runs. What the caller asked of us and cannot be had (user, directory) is an init failure; a
 * program that cannot be executed is the program's own status 127 or 126, as in every shell, with
 * the message on standard error.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest/init/init.h"

extern char** environ;

bool programs_lead_sessions;
int failed_start_status;

struct streams {
  int in[2];  /* [0] the program's end */
  int out[2]; /* [1] the program's end; with a tty the terminal: [0] ours, [1] the program's */
  int err[2];
};

static void close_pair(int* pair) {
  for (int i = 0; i < 2; i++) {
    if (pair[i] >= 0) close(pair[i]);
    pair[i] = -1;
  }
}

static void close_streams(struct streams* streams) {
  close_pair(streams->in);
  close_pair(streams->out);
  close_pair(streams->err);
}

void set_window(int terminal, struct smol_winsize window) {
  struct winsize size = {.ws_row = window.rows, .ws_col = window.columns};
  if (window.rows != 0 || window.columns != 0) ioctl(terminal, TIOCSWINSZ, &size);
}

static bool open_terminal(struct streams* streams, struct smol_winsize window,
                          struct failure* failure) {
  int ours = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (ours < 0) return fail(failure, "terminal /dev/ptmx: %s", strerror(errno));
  streams->out[0] = ours;
  int unlock = 0;
  int number = 0;
  char path[32];
  if (ioctl(ours, TIOCSPTLCK, &unlock) != 0 || ioctl(ours, TIOCGPTN, &number) != 0) {
    return fail(failure, "terminal: %s", strerror(errno));
  }
  snprintf(path, sizeof path, "/dev/pts/%d", number);
  streams->out[1] = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (streams->out[1] < 0) return fail(failure, "terminal %s: %s", path, strerror(errno));
  set_window(ours, window);
  return true;
}

static bool open_streams(const struct run_config* config, struct streams* streams,
                         struct failure* failure) {
  if ((config->head.flags & SMOL_CONFIG_TTY) != 0)
    return open_terminal(streams, config->head.window, failure);
  bool good = true;
  if ((config->head.flags & SMOL_CONFIG_STDIN) != 0) {
    good = pipe2(streams->in, O_CLOEXEC) == 0;
  } else {
    streams->in[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    good = streams->in[0] >= 0;
  }
  good = good && pipe2(streams->out, O_CLOEXEC) == 0 && pipe2(streams->err, O_CLOEXEC) == 0;
  return good || fail(failure, "the program's streams: %s", strerror(errno));
}

/* Without streams: nothing comes in, everything goes to one file. */
static bool open_log(const char* path, struct streams* streams, struct failure* failure) {
  streams->in[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
  streams->out[1] = open(path, O_WRONLY | O_APPEND | O_CREAT | O_NOCTTY | O_CLOEXEC, 0640);
  if (streams->out[1] < 0) return fail(failure, "log %.200s: %s", path, strerror(errno));
  streams->err[1] = fcntl(streams->out[1], F_DUPFD_CLOEXEC, 3);
  return (streams->in[0] >= 0 && streams->err[1] >= 0) ||
         fail(failure, "the program's streams: %s", strerror(errno));
}

static void take_streams(const struct streams* streams, bool tty, bool detached,
                         const struct user* user) {
  int in = tty ? streams->out[1] : streams->in[0];
  int out = streams->out[1];
  int err = tty ? streams->out[1] : streams->err[1];
  if (tty || programs_lead_sessions || detached) setsid();
  if (tty) ioctl(out, TIOCSCTTY, 0);
  /* /dev/stdout must open for the user too. */
  if (user->uid != 0 && !detached) {
    fchown(out, user->uid, tty ? (gid_t)-1 : user->gid);
    if (!tty) fchown(err, user->uid, user->gid);
    if (!tty && streams->in[1] >= 0) fchown(in, user->uid, user->gid);
  }
  dup2(in, 0);
  dup2(out, 1);
  dup2(err, 2);
}

static void reset_signals(void) {
  for (int signal_number = 1; signal_number < NSIG; signal_number++) signal(signal_number, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
}

_Noreturn static void run_child(const struct run_config* config, const struct user* user,
                                const struct streams* streams, bool detached, int report) {
  struct failure failure = {.text = ""};
  bool tty = (config->head.flags & SMOL_CONFIG_TTY) != 0;
  take_streams(streams, tty, detached, user);
  reset_signals();
  set_oom_score("0");
  bool good = true;
  /* The kernel starts PID 1 without further groups; in a user namespace setgroups is not ours to
   * call. */
  bool regrouped =
      setgroups(user->group_count, user->groups) == 0 || (user->group_count == 0 && errno == EPERM);
  if (!regrouped || setgid(user->gid) != 0 || setuid(user->uid) != 0) {
    good = fail(&failure, "user %u:%u: %s", user->uid, user->gid, strerror(errno));
  }
  const char* directory = config->directory[0] != '\0' ? config->directory : "/";
  if (good && chdir(directory) != 0) {
    good = fail(&failure, "working directory %s: %s", directory, strerror(errno));
  }
  if (!good) {
    ssize_t ignored = write(report, failure.text, strlen(failure.text));
    (void)ignored;
    _exit(1);
  }
  environ = config->environment;
  execvp(config->arguments[0], config->arguments);
  int error = errno;
  if (detached) {
    dprintf(report, "cannot run '%.300s': %s", config->arguments[0], strerror(error));
  } else {
    dprintf(2, "smol-init: cannot run '%s': %s\n", config->arguments[0], strerror(error));
  }
  _exit(error == ENOENT || error == ENOTDIR ? 127 : 126);
}

/* Waits for exec or its failure. */
static bool await_start(int report, pid_t pid, struct failure* failure) {
  char text[sizeof failure->text];
  size_t used = 0;
  ssize_t size;
  while (used < sizeof text - 1 &&
         ((size = read(report, text + used, sizeof text - 1 - used)) > 0 ||
          (size < 0 && errno == EINTR))) {
    if (size > 0) used += (size_t)size;
  }
  text[used] = '\0';
  if (used == 0) return true;
  int status = 0;
  waitpid(pid, &status, 0);
  failed_start_status = WIFEXITED(status) ? WEXITSTATUS(status) : 1;
  return fail(failure, "%s", text);
}

bool start_child(const struct run_config* config, const struct user* user, struct child* child,
                 struct failure* failure) {
  struct streams streams = {.in = {-1, -1}, .out = {-1, -1}, .err = {-1, -1}};
  int report[2] = {-1, -1};
  *child = (struct child){.pid = -1, .input = -1, .output = -1, .errors = -1, .terminal = -1};
  child->tty = (config->head.flags & SMOL_CONFIG_TTY) != 0;
  bool good = open_streams(config, &streams, failure);
  if (good && pipe2(report, O_CLOEXEC) != 0) good = fail(failure, "a pipe: %s", strerror(errno));
  if (good && (child->pid = fork()) < 0)
    good = fail(failure, "starting the program: %s", strerror(errno));
  if (good && child->pid == 0) run_child(config, user, &streams, false, report[1]);
  if (good) {
    close(report[1]);
    report[1] = -1;
    good = await_start(report[0], child->pid, failure);
  }
  if (good) {
    child->output = streams.out[0];
    child->input = child->tty ? streams.out[0] : streams.in[1];
    child->errors = streams.err[0];
    child->terminal = child->tty ? streams.out[1] : -1;
    if (child->tty) streams.out[1] = -1;
    streams.out[0] = streams.in[1] = streams.err[0] = -1;
    int ends[] = {child->input, child->output, child->errors};
    for (size_t i = 0; i < 3; i++) {
      if (ends[i] >= 0) fcntl(ends[i], F_SETFL, fcntl(ends[i], F_GETFL) | O_NONBLOCK);
    }
  }
  close_pair(report);
  close_streams(&streams);
  return good;
}

pid_t start_detached(const struct run_config* config, const struct user* user,
                     const char* default_log, struct failure* failure) {
  struct streams streams = {.in = {-1, -1}, .out = {-1, -1}, .err = {-1, -1}};
  int report[2] = {-1, -1};
  pid_t pid = -1;
  bool good = open_log(config->log[0] != '\0' ? config->log : default_log, &streams, failure);
  if (good && pipe2(report, O_CLOEXEC) != 0) good = fail(failure, "a pipe: %s", strerror(errno));
  if (good && (pid = fork()) < 0) good = fail(failure, "starting the program: %s", strerror(errno));
  if (good && pid == 0) run_child(config, user, &streams, true, report[1]);
  if (good) {
    close(report[1]);
    report[1] = -1;
    good = await_start(report[0], pid, failure);
  }
  close_pair(report);
  close_streams(&streams);
  return good ? pid : -1;
}

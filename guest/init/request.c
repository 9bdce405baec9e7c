/* What a forked child does for one connection: one request, one answer, and its end.
 *
 * The child may block, fail and die: PID 1 and all other requests do not notice.
 */
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "guest/init/session.h"

enum { kHangUpMs = 2000, kAnswerMs = 500 };

/* --- EXEC
 * -----------------------------------------------------------------------------------------
 */

/* The session that a process belongs to, or 0. */
static pid_t session_of(const char* pid) {
  char path[64];
  char text[512];
  if (snprintf(path, sizeof path, "/proc/%.20s/stat", pid) < 0) return 0;
  FILE* file = fopen(path, "re");
  if (file == NULL) return 0;
  size_t size = fread(text, 1, sizeof text - 1, file);
  fclose(file);
  text[size] = '\0';
  char* at =
      strrchr(text, ')'); /* the name may hold anything; behind it: " STATE PARENT GROUP SESSION" */
  if (at == NULL || strlen(at) < 4) return 0;
  at += 3;
  strtol(at, &at, 10);
  strtol(at, &at, 10);
  return (pid_t)strtol(at, NULL, 10);
}

/* All of the session that `leader` leads: shells give their jobs groups of their own. */
static void kill_session(pid_t leader, int number) {
  kill(-leader, number);
  DIR* processes = opendir("/proc");
  if (processes == NULL) return;
  for (struct dirent* entry; (entry = readdir(processes)) != NULL;) {
    if (entry->d_name[0] < '1' || entry->d_name[0] > '9') continue;
    if (session_of(entry->d_name) == leader) kill(atoi(entry->d_name), number);
  }
  closedir(processes);
}

/* The host is gone or speaks nonsense: nobody is left to watch the program. */
static void end_program(struct session* session) {
  if (session->child.pid <= 0 || session->ended) return;
  kill_session(session->child.pid, SIGHUP);
  int64_t until = now_ms() + kHangUpMs;
  bool gone = false;
  while (!gone && now_ms() < until) {
    gone = waitpid(session->child.pid, NULL, WNOHANG | __WALL) != 0;
    if (!gone) nanosleep(&(struct timespec){.tv_nsec = 20 * 1000 * 1000}, NULL);
  }
  kill_session(session->child.pid, SIGKILL);
}

static void run_detached(int host, const struct run_config* config, const struct user* user,
                         struct failure* failure) {
  pid_t pid = start_detached(config, user, "/dev/null", failure);
  if (pid < 0) {
    send_exit(host, SMOL_EXIT_INIT_FAILURE, failed_start_status, failure->text);
    return;
  }
  uint32_t number = (uint32_t)pid;
  send_frame(host, SMOL_FRAME_STARTED, &number, sizeof number);
  send_done(host, 0, 0, "");
}

static void run_attached(struct session* session, const struct run_config* config,
                         const struct user* user) {
  struct failure* failure = &session->failure;
  bool good = start_child(config, user, &session->child, failure);
  if (good) {
    uint32_t pid = (uint32_t)session->child.pid;
    if (config->head.timeout_ms != 0) session->timeout = now_ms() + config->head.timeout_ms;
    good = send_frame(session->host, SMOL_FRAME_STARTED, &pid, sizeof pid) && pump(session);
  }
  if (good) {
    send_end(session);
    return;
  }
  if (failure->text[0] != '\0') send_exit(session->host, SMOL_EXIT_INIT_FAILURE, 1, failure->text);
  end_program(session);
}

static void serve_exec(int host, int signals, char* payload, size_t size) {
  struct session* session = &the_session;
  memset(&session->failure, 0, sizeof session->failure);
  open_session(session, host, signals, true);
  struct run_config config = {0};
  struct user user;
  struct failure* failure = &session->failure;
  if (!parse_config(payload, size, spare_environment(), &config, failure) ||
      !prepare_program(&config, &user, failure)) {
    send_exit(host, SMOL_EXIT_INIT_FAILURE, 1, failure->text);
  } else if ((config.head.flags & SMOL_CONFIG_DETACHED) != 0) {
    run_detached(host, &config, &user, failure);
  } else {
    run_attached(session, &config, &user);
  }
}

/* --- The small ones
 * -------------------------------------------------------------------------------
 */

static void serve_setup(int host, char* payload, size_t size) {
  struct failure failure = {.text = ""};
  struct setup_item item;
  bool good = parse_setup(payload, size, &item, &failure) && apply_request(&item, &failure);
  send_done(host, good ? 0 : EINVAL, 0, failure.text);
}

static void serve_stats(int host) {
  struct smol_stats stats = {0};
  fill_stats(&stats);
  send_frame(host, SMOL_FRAME_STATS, &stats, sizeof stats);
}

static void serve_shutdown(int host, const char* payload, size_t size) {
  struct smol_shutdown request;
  if (size != sizeof request) {
    send_done(host, EINVAL, 0, "protocol: SHUTDOWN of a wrong size");
    return;
  }
  memcpy(&request, payload, sizeof request);
  if ((request.flags & ~(uint32_t)SMOL_SHUTDOWN_REBOOT) != 0 || request.grace_ms > INT32_MAX) {
    send_done(host, EINVAL, 0, "protocol: SHUTDOWN with unknown flags or an endless grace");
    return;
  }
  bool reboot = (request.flags & SMOL_SHUTDOWN_REBOOT) != 0;
  /* The answer first, and until the host has it: a machine's end does not wait for its devices. */
  send_done(host, 0, 0, "");
  shutdown(host, SHUT_WR);
  poll(&(struct pollfd){.fd = host, .events = POLLIN | POLLRDHUP}, 1, kAnswerMs);
  union sigval grace = {.sival_int = (int)request.grace_ms};
  sigqueue(1, reboot ? SIGTERM : SIGUSR2, grace);
}

static void serve_connect(int host, const char* path, size_t size) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  char text[256];
  if (size == 0 || path[0] != '/' || strlen(path) + 1 != size || size > sizeof address.sun_path) {
    send_done(host, EINVAL, 0, "protocol: CONNECT to what is not a socket's path");
    return;
  }
  memcpy(address.sun_path, path, size);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || connect(fd, (struct sockaddr*)&address, sizeof address) != 0) {
    int error = errno;
    snprintf(text, sizeof text, "socket %s: %s", path, strerror(error));
    send_done(host, error, 0, text);
    return;
  }
  if (send_done(host, 0, 0, "")) relay(host, fd);
}

/* What PID 1 blocks and ignores is not for a child that holds nothing. */
static void heed_signals(void) {
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
}

void serve_request(int host, int signals) {
  signal(SIGHUP, SIG_IGN); /* a shutdown's; a program gets its own handling back */
  struct smol_frame_header header = {0};
  char* payload = NULL;
  struct failure failure = {.text = ""};
  if (!send_hello(host)) return;
  if (!receive_frame(host, &header, &payload, &failure)) {
    send_done(host, EPROTO, 0, failure.text);
    return;
  }
  if (header.type != SMOL_FRAME_EXEC) heed_signals();
  switch (header.type) {
    case SMOL_FRAME_EXEC:
      return serve_exec(host, signals, payload, header.length);
    case SMOL_FRAME_SETUP:
      return serve_setup(host, payload, header.length);
    case SMOL_FRAME_COPY_IN:
      return serve_copy_in(host, payload, header.length);
    case SMOL_FRAME_COPY_OUT:
      return serve_copy_out(host, payload, header.length);
    case SMOL_FRAME_STATS:
      return serve_stats(host);
    case SMOL_FRAME_SHUTDOWN:
      return serve_shutdown(host, payload, header.length);
    case SMOL_FRAME_CONNECT:
      return serve_connect(host, payload, header.length);
    default:
      fail(&failure, "protocol: frame type %u is not a request", header.type);
      send_done(host, EPROTO, 0, failure.text);
  }
}

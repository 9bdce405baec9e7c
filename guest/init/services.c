/* The supervisor: init scripts that run once, services that are kept running, and the main one
 * whose end is the machine's.
 *
 * A service that ends is started again as its policy says, after a pause that doubles from 0.2 to
 * 60 seconds and begins anew once it has run for ten seconds. What happens is told on the console.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest/init/session.h"

enum { kFirstPauseMs = 200, kLongestPauseMs = 60 * 1000, kSettledMs = 10 * 1000 };

struct service {
  struct service* next;
  const char* name;
  struct run_config config;
  struct user user;
  uint32_t flags;
  pid_t pid;       /* -1: not running */
  int64_t started; /* ms */
  int64_t due;     /* when to start again; 0: not at all */
  int64_t pause;
  unsigned long long oom_before;
};

static struct service* services;
static bool stopping;
static bool main_ended, main_out_of_memory;
static int main_status;

#define CONSOLE "/dev/console"
#define INIT_LOG "/run/smol/init.log"

static bool start(struct service* service, struct failure* failure) {
  service->oom_before = count_oom_kills();
  service->started = now_ms();
  service->due = 0;
  const char* log = (service->flags & SMOL_SERVICE_INIT) != 0 ? INIT_LOG : CONSOLE;
  if (access(log, W_OK) != 0 && strcmp(log, CONSOLE) == 0) log = "/dev/null";
  service->pid = start_detached(&service->config, &service->user, log, failure);
  return service->pid > 0;
}

static void describe(const struct service* service, int status, const char* what_next) {
  char line[300];
  bool killed = WIFSIGNALED(status);
  snprintf(line, sizeof line, "service %.100s ended %s %d%s", service->name,
           killed ? "by signal" : "with status", killed ? WTERMSIG(status) : WEXITSTATUS(status),
           what_next);
  say(line);
}

/* Whatever the last pages of the script's log say. */
static void read_tail(const char* path, char* text, size_t room) {
  text[0] = '\0';
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return;
  off_t end = lseek(fd, 0, SEEK_END);
  off_t from = end > (off_t)(room - 1) ? end - (off_t)(room - 1) : 0;
  ssize_t size = pread(fd, text, room - 1, from);
  close(fd);
  text[size > 0 ? size : 0] = '\0';
  size_t length = strlen(text);
  while (length > 0 && (text[length - 1] == '\n' || text[length - 1] == '\r'))
    text[--length] = '\0';
}

static bool host_left(int host) {
  char byte;
  ssize_t size = recv(host, &byte, 1, MSG_DONTWAIT | MSG_PEEK);
  return size == 0 || (size < 0 && errno != EAGAIN && errno != EINTR);
}

/* Runs to its end. Other children that end meanwhile are the supervisor's business as ever. */
static bool run_script(struct service* service, int host, struct failure* failure) {
  unlink(INIT_LOG);
  if (!make_folders("/run/smol", failure) || !start(service, failure)) return false;
  int status = 0;
  for (;;) {
    int ended_status = 0;
    pid_t pid = waitpid(-1, &ended_status, WNOHANG);
    if (pid == service->pid) {
      status = ended_status;
      break;
    }
    if (pid > 0) {
      service_ended(pid, ended_status);
      continue;
    }
    if (host_left(host)) return fail(failure, "the host went away during the start");
    poll(&(struct pollfd){.fd = host, .events = POLLRDHUP}, 1, 10);
    tend_services();
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return true;
  char tail[300];
  read_tail(service->config.log[0] != '\0' ? service->config.log : INIT_LOG, tail, sizeof tail);
  bool killed = WIFSIGNALED(status);
  return fail(failure, "init script '%.60s' ended %s %d%s%s", service->name,
              killed ? "by signal" : "with status", killed ? WTERMSIG(status) : WEXITSTATUS(status),
              tail[0] != '\0' ? ": " : "", tail);
}

bool add_service(const struct setup_item* item, int host, struct failure* failure) {
  struct service* service = calloc(1, sizeof *service);
  if (service == NULL) return fail(failure, "no memory for a service");
  *service = (struct service){
      .name = item->strings[0], .flags = item->flags, .pid = -1, .pause = kFirstPauseMs};
  struct failure reason = {.text = ""};
  bool good =
      parse_config(item->tail, item->tail_size, spare_environment(), &service->config, &reason) &&
      ((service->config.head.flags & ~(uint32_t)SMOL_CONFIG_DETACHED) == 0 ||
       fail(&reason, "a service has neither terminal nor input")) &&
      prepare_program(&service->config, &service->user, &reason);
  if (good && (item->flags & SMOL_SERVICE_INIT) != 0) {
    good = run_script(service, host, failure);
    free(service->config.arguments);
    free(service);
    return good;
  }
  good = good && start(service, &reason);
  if (!good) return fail(failure, "service '%.60s': %s", item->strings[0], reason.text);
  service->next = services;
  services = service;
  return true;
}

static void plan_restart(struct service* service, int status) {
  bool failed = !WIFEXITED(status) || WEXITSTATUS(status) != 0;
  uint32_t policy = service->flags & SMOL_SERVICE_RESTART_MASK;
  bool again = policy == SMOL_SERVICE_RESTART_ALWAYS ||
               (policy == SMOL_SERVICE_RESTART_ON_FAILURE && failed);
  if (stopping || !again) {
    if (!stopping) describe(service, status, "");
    if ((service->flags & SMOL_SERVICE_MAIN) != 0) {
      main_ended = true;
      main_status = status;
      main_out_of_memory = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL &&
                           count_oom_kills() > service->oom_before;
    }
    return;
  }
  if (now_ms() - service->started >= kSettledMs) service->pause = kFirstPauseMs;
  service->due = now_ms() + service->pause;
  char next[60];
  snprintf(next, sizeof next, "; again in %d.%d s", (int)(service->pause / 1000),
           (int)(service->pause % 1000 / 100));
  service->pause *= 2;
  if (service->pause > kLongestPauseMs) service->pause = kLongestPauseMs;
  describe(service, status, next);
}

bool service_ended(pid_t pid, int status) {
  for (struct service* service = services; service != NULL; service = service->next) {
    if (service->pid != pid) continue;
    service->pid = -1;
    plan_restart(service, status);
    return true;
  }
  return false;
}

int tend_services(void) {
  int64_t next = -1;
  for (struct service* service = services; service != NULL; service = service->next) {
    if (service->due == 0 || stopping) continue;
    int64_t left = service->due - now_ms();
    if (left <= 0) {
      struct failure failure = {.text = ""};
      if (start(service, &failure)) continue;
      say_failure(&failure);
      plan_restart(service, 127 << 8);
      if (service->due == 0) continue;
      left = service->due - now_ms();
    }
    if (next < 0 || left < next) next = left;
  }
  return next < 0 ? -1 : (int)(next + 1);
}

void stop_services(void) { stopping = true; }

static int stop_signal(const struct service* service) {
  return (int)((service->flags & SMOL_SERVICE_STOP_MASK) >> SMOL_SERVICE_STOP_SHIFT);
}

bool own_signal_services_run(void) {
  for (struct service* service = services; service != NULL; service = service->next)
    if (service->pid > 0 && stop_signal(service) != 0) return true;
  return false;
}

bool signal_services(void) {
  for (struct service* service = services; service != NULL; service = service->next) {
    if (service->pid <= 0 || stop_signal(service) == 0) continue;
    kill(service->pid, stop_signal(service));
    kill(service->pid, SIGCONT);
  }
  return own_signal_services_run();
}

bool main_service_ended(int* status, bool* out_of_memory) {
  if (!main_ended) return false;
  *status = main_status;
  *out_of_memory = main_out_of_memory;
  return true;
}

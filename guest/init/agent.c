/* PID 1 of a machine that stays up: it accepts and forks, reaps and restarts, and ends the machine.
 *
 * A request's child keeps the terminal settings, secrets and mounts of PID 1 by being its copy, so
 * nothing has to be told to it. What a child wants of PID 1 is a signal: SIGUSR2 ends the machine,
 * with the grace in its value, exactly as `poweroff` inside the guest does.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest/init/session.h"

enum { kDefaultGraceMs = 5000, kMostGraceMs = 10 * 60 * 1000 };

struct agent {
  int signals;
  int listener; /* -1: nothing is accepted any more */
  bool ending;
  int64_t kill_at; /* when what is left is killed */
  bool empty;      /* no process is left */
  bool asked;      /* services with a stop signal of their own have it; the others wait for them */
};

static void end_programs(void) {
  kill(-1, SIGTERM);
  kill(-1, SIGCONT);
}

static void begin_end(struct agent* agent, int64_t grace_ms) {
  int64_t kill_at = now_ms() + grace_ms;
  if (agent->ending) {
    if (kill_at < agent->kill_at) agent->kill_at = kill_at;
    return;
  }
  agent->ending = true;
  agent->kill_at = kill_at;
  stop_services();
  if (agent->listener >= 0) close(agent->listener);
  agent->listener = -1;
  /* A SIGTERM besides would be another order to them than the one that was asked for. */
  agent->asked = signal_services();
  if (!agent->asked) end_programs();
}

static void take_signals(struct agent* agent) {
  struct signalfd_siginfo info;
  while (read(agent->signals, &info, sizeof info) == (ssize_t)sizeof info) {
    if (info.ssi_signo == SIGCHLD) continue;
    int64_t grace = info.ssi_code == SI_QUEUE ? info.ssi_int : kDefaultGraceMs;
    begin_end(agent, grace < 0 || grace > kMostGraceMs ? kDefaultGraceMs : grace);
  }
}

static void reap(struct agent* agent) {
  int status = 0;
  pid_t pid;
  while ((pid = waitpid(-1, &status, WNOHANG)) > 0) service_ended(pid, status);
  agent->empty = pid < 0 && errno == ECHILD;
  bool out_of_memory = false;
  if (agent->asked && !own_signal_services_run()) {
    agent->asked = false;
    end_programs();
  }
  if (!agent->ending && main_service_ended(&status, &out_of_memory))
    begin_end(agent, kDefaultGraceMs);
}

static void accept_request(struct agent* agent) {
  int host = accept_host(agent->listener);
  if (host < 0) return;
  pid_t pid = fork();
  if (pid == 0) {
    close(agent->listener);
    serve_request(host, agent->signals);
    _exit(0);
  }
  if (pid < 0) {
    char text[100];
    snprintf(text, sizeof text, "the agent cannot fork: %s", strerror(errno));
    send_done(host, errno, 0, text);
  }
  close(host);
}

/* The host that started the machine may be gone: then its console tells. */
static void tell_main_end(void) {
  int status = 0;
  bool out_of_memory = false;
  if (!main_service_ended(&status, &out_of_memory)) return;
  struct smol_exit end = {.kind = out_of_memory         ? SMOL_EXIT_OUT_OF_MEMORY
                                  : WIFSIGNALED(status) ? SMOL_EXIT_SIGNAL
                                                        : SMOL_EXIT_STATUS,
                          .value = WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status)};
  char line[100];
  snprintf(line, sizeof line, "main ended %s %d", WIFSIGNALED(status) ? "by signal" : "with status",
           end.value);
  say(line);
  int host = connect_port(SMOL_RUN_PORT);
  if (host < 0) return;
  if (send_hello(host) && send_frame(host, SMOL_FRAME_MAIN_EXIT, &end, sizeof end)) {
    shutdown(host, SHUT_WR);
    poll(&(struct pollfd){.fd = host, .events = POLLIN}, 1, 1000);
  }
  close(host);
}

static int wait_time(const struct agent* agent) {
  if (!agent->ending) return tend_services();
  int64_t left = agent->kill_at - now_ms();
  return left > 0 ? (int)left : 0;
}

void run_agent(int host, int signals) {
  struct agent agent = {.signals = signals, .listener = listen_for_host()};
  if (agent.listener < 0) {
    char text[120];
    snprintf(text, sizeof text, "listening for requests: %s", strerror(errno));
    say(text);
    send_exit(host, SMOL_EXIT_INIT_FAILURE, 1, text);
    close(host);
    return;
  }
  programs_lead_sessions = true;
  /* Without anybody who knows of it, the machine would run for ever. */
  if (!send_frame(host, SMOL_FRAME_READY, NULL, 0)) begin_end(&agent, kDefaultGraceMs);
  close(host);
  while (!agent.ending || (!agent.empty && now_ms() < agent.kill_at)) {
    struct pollfd fds[2] = {{.fd = signals, .events = POLLIN},
                            {.fd = agent.listener, .events = POLLIN}};
    poll(fds, 2, wait_time(&agent));
    take_signals(&agent);
    reap(&agent);
    if (agent.listener >= 0 && (fds[1].revents & POLLIN) != 0) accept_request(&agent);
  }
  kill_everything();
  settle_file_systems();
  tell_main_end();
}

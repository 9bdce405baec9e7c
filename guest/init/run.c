/* The boot connection: HELLO, SETUP, then one program and its end, or the agent.
 *
 * A run's EXIT is sent when nothing runs any more and all file systems are clean: the host may then
 * destroy the machine at once.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "guest/init/session.h"

/* Takes SETUP frames; returns with the first other one. */
static bool receive_setups(int host, struct smol_frame_header* header, char** payload,
                           struct failure* failure) {
  while (receive_frame(host, header, payload, failure)) {
    if (header->type != SMOL_FRAME_SETUP) return true;
    if (!keep_setup(*payload, header->length, failure)) return false;
  }
  return false;
}

static bool check_agent(const char* payload, size_t size, struct failure* failure) {
  struct smol_agent agent;
  if (size != sizeof agent) return fail(failure, "protocol: AGENT of %zu bytes", size);
  memcpy(&agent, payload, sizeof agent);
  if (agent.version != SMOL_PROTOCOL_VERSION || agent.flags != 0) {
    return fail(failure, "protocol: AGENT has version %u and flags %#x", agent.version,
                agent.flags);
  }
  return true;
}

/* After EXIT: the host closes or ends the VM; give it five seconds. */
static void await_close(int host) {
  char byte;
  struct pollfd poll_fd = {.fd = host, .events = POLLIN};
  int64_t deadline = now_ms() + 5000;
  for (int64_t left; (left = deadline - now_ms()) > 0;) {
    if (poll(&poll_fd, 1, (int)left) <= 0) continue;
    ssize_t size = recv(host, &byte, 1, MSG_DONTWAIT);
    if (size == 0 || (size < 0 && errno != EAGAIN && errno != EINTR)) return;
  }
}

static void end_in_failure(int host, const struct failure* failure) {
  kill_everything();
  settle_file_systems();
  if (failure->text[0] != '\0') {
    say(failure->text);
    send_exit(host, SMOL_EXIT_INIT_FAILURE, 1, failure->text);
  }
  await_close(host);
}

/* One program, whose end is the machine's. */
static void run_program(struct session* session, char* payload, size_t size) {
  struct failure* failure = &session->failure;
  struct run_config config = {0};
  struct user user;
  bool good = parse_config(payload, size, spare_environment(), &config, failure);
  if (good && (config.head.flags & SMOL_CONFIG_DETACHED) != 0)
    good = fail(failure, "protocol: a CONFIG cannot be detached");
  good = good && prepare_program(&config, &user, failure) &&
         start_child(&config, &user, &session->child, failure);
  if (good) {
    uint32_t pid = (uint32_t)session->child.pid;
    good = send_frame(session->host, SMOL_FRAME_STARTED, &pid, sizeof pid) && pump(session);
  }
  if (!good) return end_in_failure(session->host, failure);
  settle_file_systems();
  send_end(session);
  await_close(session->host);
}

void run_session(int host) {
  struct session* session = &the_session;
  open_session(session, host, open_signals(), false);
  struct smol_frame_header header = {0};
  char* payload = NULL;
  struct failure* failure = &session->failure;
  bool good = send_hello(host) && receive_setups(host, &header, &payload, failure);
  if (good && header.type != SMOL_FRAME_CONFIG && header.type != SMOL_FRAME_AGENT)
    good = fail(failure, "protocol: frame type %u before CONFIG", header.type);
  if (good && header.type == SMOL_FRAME_AGENT) good = check_agent(payload, header.length, failure);
  good = good && apply_setups(host, failure);
  if (!good) {
    end_in_failure(host, failure);
  } else if (header.type == SMOL_FRAME_CONFIG) {
    run_program(session, payload, header.length);
  } else {
    run_agent(host, session->signals);
  }
}

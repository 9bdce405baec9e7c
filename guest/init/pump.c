/* The poll loop between a program, its streams and the host. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "guest/init/session.h"

struct session the_session;

int64_t now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

unsigned long long count_oom_kills(void) {
  static char text[16384];
  int fd = open("/proc/vmstat", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  size_t used = 0;
  ssize_t size;
  while (used < sizeof text - 1 && (size = read(fd, text + used, sizeof text - 1 - used)) > 0)
    used += (size_t)size;
  close(fd);
  text[used] = '\0';
  const char* line = strstr(text, "\noom_kill ");
  return line != NULL ? strtoull(line + 10, NULL, 10) : 0;
}

/* --- From the host ------------------------------------------------------------------------------
 */

static void close_input(struct session* session) {
  if (session->child.input >= 0 && !session->child.tty) close(session->child.input);
  session->child.input = -1;
}

/* Takes `size` bytes off the ring's front and gives the window back. */
static void consume_stdin(struct session* session, size_t size) {
  session->stdin_start = (session->stdin_start + size) % sizeof session->stdin_ring;
  session->stdin_used -= size;
  session->stdin_taken += (uint32_t)size;
}

static void feed_stdin(struct session* session) {
  while (session->stdin_used > 0 && session->child.input >= 0) {
    size_t chunk = sizeof session->stdin_ring - session->stdin_start;
    if (chunk > session->stdin_used) chunk = session->stdin_used;
    ssize_t size = write(session->child.input, session->stdin_ring + session->stdin_start, chunk);
    if (size > 0) {
      consume_stdin(session, (size_t)size);
    } else if (size < 0 && errno == EAGAIN) {
      return;
    } else if (size == 0 || errno != EINTR) {
      close_input(session); /* nobody reads it any more */
    }
  }
  if (session->child.input < 0) consume_stdin(session, session->stdin_used);
  if (session->stdin_eof && session->stdin_used == 0 && session->child.input >= 0) {
    if (session->child.tty) {
      const char end_of_file = 4; /* VEOF's default; a raw terminal takes it as a byte */
      ssize_t ignored = write(session->child.input, &end_of_file, 1);
      (void)ignored;
    }
    close_input(session);
  }
}

static bool take_stdin(struct session* session, const unsigned char* data, size_t size) {
  if (session->stdin_eof) return fail(&session->failure, "protocol: STDIN after STDIN_EOF");
  if (size > sizeof session->stdin_ring - session->stdin_open) {
    return fail(&session->failure, "protocol: STDIN beyond its window of %d bytes",
                SMOL_STDIN_WINDOW);
  }
  session->stdin_open += (uint32_t)size;
  for (size_t done = 0; done < size;) {
    size_t at = (session->stdin_start + session->stdin_used) % sizeof session->stdin_ring;
    size_t chunk = sizeof session->stdin_ring - at;
    if (chunk > size - done) chunk = size - done;
    memcpy(session->stdin_ring + at, data + done, chunk);
    session->stdin_used += chunk;
    done += chunk;
  }
  feed_stdin(session);
  return true;
}

static bool take_signal(struct session* session, const unsigned char* data, size_t size) {
  uint32_t number = 0;
  if (size != sizeof number) return fail(&session->failure, "protocol: SIGNAL of %zu bytes", size);
  memcpy(&number, data, sizeof number);
  if (number < 1 || number > 64) return fail(&session->failure, "protocol: SIGNAL %u", number);
  /* One of many is the leader of a session of its own, whose helpers are meant too. */
  if (!session->ended)
    kill(session->one_of_many ? -session->child.pid : session->child.pid, (int)number);
  return true;
}

static bool take_window(struct session* session, const unsigned char* data, size_t size) {
  struct smol_winsize window;
  if (size != sizeof window) return fail(&session->failure, "protocol: WINSIZE of %zu bytes", size);
  memcpy(&window, data, sizeof window);
  if (session->child.tty && session->child.output >= 0) set_window(session->child.output, window);
  return true;
}

static bool take_frame(struct session* session, uint16_t type, const unsigned char* data,
                       size_t size) {
  switch (type) {
    case SMOL_FRAME_STDIN:
      return take_stdin(session, data, size);
    case SMOL_FRAME_STDIN_EOF:
      session->stdin_eof = true;
      feed_stdin(session);
      return true;
    case SMOL_FRAME_WINSIZE:
      return take_window(session, data, size);
    case SMOL_FRAME_SIGNAL:
      return take_signal(session, data, size);
    default:
      return fail(&session->failure, "protocol: frame type %u while the program runs", type);
  }
}

/* Receives what is there, frame by frame. False on a frame that must not be. */
static bool receive_frames(struct session* session) {
  for (int frames = 0; frames < 64;) {
    struct smol_frame_header header = {0};
    size_t wanted = sizeof header;
    if (session->in_used >= sizeof header) {
      memcpy(&header, session->in, sizeof header);
      wanted += header.length;
    }
    if (session->in_used < wanted) {
      ssize_t size = recv(session->host, session->in + session->in_used, wanted - session->in_used,
                          MSG_DONTWAIT);
      if (size < 0 && errno == EINTR) continue;
      if (size < 0 && errno == EAGAIN) return true;
      if (size <= 0) {
        session->host_gone = true;
        return true;
      }
      session->in_used += (size_t)size;
      if (session->in_used != sizeof header || wanted != sizeof header) {
        if (session->in_used < wanted) continue;
      } else {
        memcpy(&header, session->in, sizeof header);
        if (!check_header(&header, &session->failure)) return false;
        if (header.length > SMOL_MAX_DATA)
          return fail(&session->failure, "protocol: frame type %u while the program runs",
                      header.type);
        if (header.length > 0) continue;
      }
    }
    session->in_used = 0;
    if (!take_frame(session, header.type, session->in + sizeof header, header.length)) return false;
    frames++;
  }
  return true;
}

/* --- To the host --------------------------------------------------------------------------------
 */

static void queue_frame(struct session* session, uint16_t type, size_t size) {
  struct smol_frame_header header = {.length = (uint32_t)size, .type = type};
  memcpy(session->out, &header, sizeof header);
  session->out_used = sizeof header + size;
  session->out_sent = 0;
}

/* Moves one read of the program's output into the frame buffer; closes `*fd` at its end. */
static void read_output(struct session* session, int* fd, uint16_t type) {
  if (*fd < 0 || session->out_used > 0) return;
  ssize_t size = read(*fd, session->out + SMOL_FRAME_HEADER_SIZE, SMOL_MAX_DATA);
  if (size > 0) {
    if (session->ended && session->one_of_many) session->after_end += (size_t)size;
    if (session->after_end <= kMostAfterEnd) {
      queue_frame(session, type, (size_t)size);
      return;
    }
    size = 0; /* written by those who were left behind */
  }
  bool alive = size < 0 && (errno == EAGAIN || errno == EINTR);
  /* All who could write have been killed; one that is stuck in the kernel is not waited for. */
  bool over = session->ended && now_ms() >= session->deadline;
  if (alive && !over) return;
  if (session->child.tty) session->child.input = -1;
  close(*fd);
  *fd = -1;
}

static void send_pending(struct session* session) {
  while (session->out_used > 0) {
    ssize_t size = send(session->host, session->out + session->out_sent,
                        session->out_used - session->out_sent, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0 && errno == EAGAIN) return;
    if (size <= 0) {
      session->host_gone = true;
      return;
    }
    session->out_sent += (size_t)size;
    if (session->out_sent == session->out_used) session->out_used = 0;
  }
}

static void send_output(struct session* session) {
  for (int frames = 0; frames < 16; frames++) {
    send_pending(session);
    if (session->out_used > 0 || session->host_gone) return;
    if (session->stdin_taken > 0) {
      memcpy(session->out + SMOL_FRAME_HEADER_SIZE, &session->stdin_taken,
             sizeof session->stdin_taken);
      session->stdin_open -= session->stdin_taken;
      session->stdin_taken = 0;
      queue_frame(session, SMOL_FRAME_STDIN_TAKEN, sizeof session->stdin_taken);
      continue;
    }
    read_output(session, &session->child.errors, SMOL_FRAME_STDERR);
    read_output(session, &session->child.output, SMOL_FRAME_STDOUT);
    if (session->out_used == 0) return;
  }
}

/* --- Signals and ends ---------------------------------------------------------------------------
 */

static void reap(struct session* session) {
  int status = 0;
  pid_t pid;
  while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
    if (pid != session->child.pid) {
      if (!session->one_of_many) service_ended(pid, status);
      continue;
    }
    stop_services();
    session->ended = true;
    session->status = status;
    /* A run is the program's: whatever it left behind ends with it. One of many may leave
     * servers behind; only what it has written itself is waited for. */
    if (!session->one_of_many) kill(-1, SIGKILL);
    if (session->child.terminal >= 0) close(session->child.terminal);
    session->child.terminal = -1;
    session->deadline = now_ms() + (session->one_of_many ? 0 : kStragglerMs);
  }
}

static void take_signals(struct session* session) {
  struct signalfd_siginfo info;
  while (read(session->signals, &info, sizeof info) == (ssize_t)sizeof info) {
    /* `poweroff`, `halt` and `reboot` inside the guest signal PID 1. */
    /* A shutdown tells the programs itself, but an interactive shell does not end by SIGTERM. */
    if (session->one_of_many) {
      if (info.ssi_signo == SIGTERM && session->child.tty && !session->ended)
        kill(-session->child.pid, SIGHUP);
      continue;
    }
    if (info.ssi_signo != SIGCHLD && !session->ended && session->deadline == 0) {
      kill(session->child.pid, SIGTERM);
      session->deadline = now_ms() + kStragglerMs;
    }
  }
  reap(session);
}

static int poll_timeout(const struct session* session) {
  int64_t until = session->deadline;
  if (until == 0) until = session->timeout;
  if (until == 0) return session->one_of_many ? -1 : tend_services();
  int64_t left = until - now_ms();
  return left > 0 ? (int)left : 10;
}

static void check_timeout(struct session* session) {
  if (session->timeout == 0 || session->ended || now_ms() < session->timeout) return;
  session->timed_out = true;
  session->timeout = 0;
  kill(-session->child.pid, SIGKILL);
}

static void poll_once(struct session* session) {
  bool room = session->out_used == 0;
  short terminal_out = session->child.tty && session->stdin_used > 0 ? POLLOUT : 0;
  struct pollfd fds[] = {
      {.fd = session->signals, .events = POLLIN},
      {.fd = session->host, .events = (short)(POLLIN | (room ? 0 : POLLOUT))},
      {.fd = room || terminal_out ? session->child.output : -1,
       .events = (short)((room ? POLLIN : 0) | terminal_out)},
      {.fd = room ? session->child.errors : -1, .events = POLLIN},
      {.fd = session->stdin_used > 0 && !session->child.tty ? session->child.input : -1,
       .events = POLLOUT},
  };
  poll(fds, sizeof fds / sizeof fds[0], poll_timeout(session));
}

/* Runs until the program has ended and all its output is sent. False on a protocol error or a lost
 * host. */
bool pump(struct session* session) {
  while (!session->ended || session->child.output >= 0 || session->child.errors >= 0 ||
         session->out_used > 0) {
    poll_once(session);
    take_signals(session);
    if (!receive_frames(session)) return false;
    feed_stdin(session);
    send_output(session);
    if (session->host_gone) return false;
    check_timeout(session);
    if (!session->ended && session->deadline != 0 && now_ms() >= session->deadline) {
      kill(session->child.pid, SIGKILL);
    }
  }
  return true;
}

int open_signals(void) {
  sigset_t set;
  sigemptyset(&set);
  const int numbers[] = {SIGCHLD, SIGTERM, SIGINT, SIGUSR1, SIGUSR2, SIGPWR};
  for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) sigaddset(&set, numbers[i]);
  sigprocmask(SIG_BLOCK, &set, NULL);
  return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

void open_session(struct session* session, int host, int signals, bool one_of_many) {
  session->host = host;
  session->signals = signals;
  session->one_of_many = one_of_many;
  session->child =
      (struct child){.pid = -1, .input = -1, .output = -1, .errors = -1, .terminal = -1};
  session->oom_before = count_oom_kills();
}

bool send_end(struct session* session) {
  if (session->timed_out) return send_exit(session->host, SMOL_EXIT_TIMEOUT, 124, "");
  if (WIFEXITED(session->status)) {
    return send_exit(session->host, SMOL_EXIT_STATUS, WEXITSTATUS(session->status), "");
  }
  int number = WTERMSIG(session->status);
  if (number == SIGKILL && count_oom_kills() > session->oom_before) {
    return send_exit(session->host, SMOL_EXIT_OUT_OF_MEMORY, number,
                     "the guest ran out of memory and its kernel killed the program");
  }
  return send_exit(session->host, SMOL_EXIT_SIGNAL, number, "");
}

/* One program with its streams and the host that watches it: what run.c and exec.c share.
 *
 * The poll loop never blocks on one party while another waits: the host's connection is always read
 * (standard input has its own window), and output is taken from the program only when the frame
 * before it has left. Buffers are fixed; nothing is allocated but the CONFIG.
 */
#ifndef SMOL_GUEST_SESSION_H
#define SMOL_GUEST_SESSION_H

#include "guest/init/init.h"

enum {
  kStragglerMs =
      2000, /* how long killed processes may take to go, or a program after our SIGTERM */
  kMostAfterEnd = (1 << 20) + SMOL_MAX_DATA, /* more than a pipe holds by default */
  kFrameRoom = SMOL_FRAME_HEADER_SIZE + SMOL_MAX_DATA,
};

struct session {
  int host;
  int signals; /* signalfd */
  struct child child;
  struct failure failure;

  unsigned char in[kFrameRoom]; /* the frame being received */
  size_t in_used;
  unsigned char out[kFrameRoom]; /* the frame being sent */
  size_t out_used;
  size_t out_sent;

  unsigned char stdin_ring[SMOL_STDIN_WINDOW];
  size_t stdin_start;
  size_t stdin_used;
  uint32_t stdin_taken; /* to be told to the host */
  uint32_t stdin_open;  /* bytes sent by the host and not yet given back */
  bool stdin_eof;

  bool one_of_many; /* EXEC: the machine goes on after the program */
  bool ended;       /* the program has been reaped; its status is below */
  int status;
  int64_t deadline; /* of stragglers; 0: none */
  int64_t timeout;  /* when an EXEC's time is over; 0: never */
  bool timed_out;
  size_t after_end; /* bytes read after the program's end */
  bool host_gone;
  unsigned long long oom_before;
};

extern struct session the_session; /* in .bss: pages that are never touched cost nothing */

int64_t now_ms(void);
/* How often the kernel's out-of-memory killer struck. */
unsigned long long count_oom_kills(void);
/* Blocks the signals that the loop reads, and returns a signalfd for them. */
int open_signals(void);
/* Prepares the_session for one program; `signals` is its own signalfd. */
void open_session(struct session* session, int host, int signals, bool one_of_many);
/* Runs until the program ended and its output has left. False when the host went away or broke the
 * protocol (then session->failure says so): the program may still run. */
bool pump(struct session* session);
/* EXIT, from how the program ended. */
bool send_end(struct session* session);

#endif

/* inject PID TID NUMBER: makes a thread of another process that waits in a system call make another
 * one.
 *
 * The thread is stopped at the `syscall` instruction that it waits in; its registers are changed so
 * that it makes system call NUMBER (all arguments 0) when it goes on. This is what code that broke
 * into the thread could do, without any help by the program under test.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>

static void die(const char *what) {
  fprintf(stderr, "inject: %s: %s\n", what, strerror(errno));
  exit(1);
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  const pid_t thread = atoi(argv[1]);
  const long number = atol(argv[2]);
  struct user_regs_struct registers;
  int status;
  if (ptrace(PTRACE_SEIZE, thread, 0, 0) != 0) die("seize");
  if (ptrace(PTRACE_INTERRUPT, thread, 0, 0) != 0) die("interrupt");
  if (waitpid(thread, &status, __WALL) != thread) die("wait");
  if (ptrace(PTRACE_GETREGS, thread, 0, &registers) != 0) die("get registers");
  const long code = ptrace(PTRACE_PEEKTEXT, thread, registers.rip - 2, 0);
  if ((code & 0xffff) != 0x050f) {
    fprintf(stderr, "inject: the thread does not wait in a system call (code %lx at %llx)\n",
            code & 0xffff, registers.rip);
    return 3;
  }
  registers.rip -= 2;
  registers.rax = number;
  registers.orig_rax = -1; /* nothing to restart */
  registers.rdi = registers.rsi = registers.rdx = registers.r10 = registers.r8 = registers.r9 = 0;
  if (ptrace(PTRACE_SETREGS, thread, 0, &registers) != 0) die("set registers");
  if (ptrace(PTRACE_DETACH, thread, 0, 0) != 0) die("detach");
  return 0;
}

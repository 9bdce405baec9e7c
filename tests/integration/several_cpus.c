// What threads of one process do to each other on several CPUs; each part prints its name when all
// was right.
//   counters   locked and mutex-guarded increments lose nothing
//   pingpong   two threads wake each other by futex
//   mappings   a thread unmaps, maps and protects pages that the others read: they see the old or
//   the new, and faults only when told code       a thread rewrites a function, others run it after
//   a core-serializing barrier
#define _GNU_SOURCE
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { kMost = 32 };
static int threads = 4;

static void fail(const char *what) {
  printf("FAILED: %s\n", what);
  exit(1);
}

static void run_threads(int count, void *(*function)(void *)) {
  pthread_t ids[kMost];
  for (long i = 0; i < count; ++i)
    if (pthread_create(&ids[i], NULL, function, (void *)i) != 0) fail("pthread_create");
  for (int i = 0; i < count; ++i) pthread_join(ids[i], NULL);
}

// --- counters
enum { kIncrements = 20000 };
static _Atomic long locked;
static long guarded;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static void *count(void *unused) {
  for (int i = 0; i < kIncrements; ++i) {
    atomic_fetch_add(&locked, 1);
    pthread_mutex_lock(&mutex);
    ++guarded;
    pthread_mutex_unlock(&mutex);
  }
  return unused;
}
static void counters(void) {
  run_threads(threads, count);
  if (locked != (long)threads * kIncrements || guarded != locked) fail("counters");
}

// --- pingpong
enum { kRounds = 3000 };
static _Atomic int turn;

static void *play(void *number) {
  const int mine = (int)(long)number;
  for (int i = 0; i < kRounds; ++i) {
    int now;
    while ((now = atomic_load(&turn)) != mine)
      syscall(SYS_futex, &turn, FUTEX_WAIT_PRIVATE, now, NULL);
    atomic_store(&turn, 1 - mine);
    syscall(SYS_futex, &turn, FUTEX_WAKE_PRIVATE, 1);
  }
  return NULL;
}
static void pingpong(void) { run_threads(2, play); }

// --- mappings: page i of the area always holds i or 0
enum { kPages = 16, kRemaps = 200 };
static char *area;
static _Atomic int remapped;
static _Thread_local sigjmp_buf faulted;

static void on_fault(int number) { siglongjmp(faulted, number); }
static void *map_or_read(void *number) {
  const long size = 4096;
  if (number == NULL) {
    for (int i = 0; i < kRemaps; ++i) {
      char *const page = area + (i % kPages) * size;
      if (munmap(page, size) != 0) fail("munmap");
      if (mmap(page, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
               0) != page)
        fail("mmap");
      *(volatile long *)page = i % kPages;
      if (mprotect(page, size, PROT_READ) != 0) fail("mprotect");
      void *const other =
          mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      memset(other, 0x5a,
             size);  // takes the page that was freed; who still reads through it sees this
      munmap(other, size);
    }
    atomic_store(&remapped, 1);
    return NULL;
  }
  volatile unsigned at = 0;
  while (!atomic_load(&remapped)) {
    if (sigsetjmp(faulted, 1) == 0) {
      const unsigned page = at++ % kPages;
      const long value = *(volatile long *)(area + page * size);
      if (value != 0 && value != (long)page) fail("mappings: a page of somebody else");
    }
  }
  return NULL;
}
static void mappings(void) {
  area = mmap(NULL, kPages * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  struct sigaction action = {.sa_handler = on_fault};
  sigaction(SIGSEGV, &action, NULL);
  run_threads(threads, map_or_read);
  signal(SIGSEGV, SIG_DFL);
}

// --- code: the function gives a number that only grows
enum { kVersions = 100 };
static unsigned char *function;
static _Atomic unsigned told, done;

static void *write_or_call(void *number) {
  if (number == NULL) {
    for (unsigned version = 1; version <= kVersions; ++version) {
      memcpy(function + 4, &version, 4);  // mov eax, imm32 at 3
      if (syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0) != 0)
        fail("membarrier");
      atomic_store(&told, version);
    }
    atomic_store(&done, 1);
    return NULL;
  }
  while (!atomic_load(&done)) {
    const unsigned least = atomic_load(&told);
    if (((unsigned (*)(void))function)() < least) fail("code: an old function");
  }
  return NULL;
}
static void code(void) {
  static const unsigned char bytes[] = {0x90, 0x90, 0x90, 0xb8, 0, 0, 0, 0, 0xc3};
  function =
      mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  memcpy(function, bytes, sizeof(bytes));
  if (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0) != 0)
    fail("membarrier");
  run_threads(threads, write_or_call);
}

int main(int argc, char **argv) {
  if (argc > 1) threads = atoi(argv[1]);
  if (threads < 2 || threads > kMost) fail("usage: several_cpus THREADS");
  setvbuf(stdout, NULL, _IONBF, 0);
  counters();
  puts("counters");
  pingpong();
  puts("pingpong");
  mappings();
  puts("mappings");
  code();
  puts("code");
  return 0;
}

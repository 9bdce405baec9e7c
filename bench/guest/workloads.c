/* Workloads that are timed inside a guest, on the host, and under peers: one static program, the
 * same bytes everywhere.
 *
 * usage: workloads MILLISECONDS [NAME...]
 * Each workload runs for about that time and prints a line of JSON: name, nanoseconds an iteration,
 * iterations, and the TSC ticks of one iteration of a fixed count (on the software CPU's
 * deterministic mode the TSC counts retired instructions, so that ticks are instructions, exactly).
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t ticks(void) {
  uint32_t low, high;
  __asm__ volatile("lfence; rdtsc" : "=a"(low), "=d"(high)::"memory");
  return (uint64_t)high << 32 | low;
}

static volatile uint64_t sink;

/* --- integer loop mix: adds, shifts, multiplies, branches, loads and stores of a small table ---
 */
static uint32_t table[256];
static __attribute__((noinline)) void integer_mix(void) {
  uint64_t a = 1, b = 0x9e3779b97f4a7c15u, c = 0;
  for (int i = 0; i < 20000; ++i) {
    a += b ^ (a >> 7);
    b = b * 6364136223846793005u + 1442695040888963407u;
    if (b & 0x400)
      c += a & 0xff;
    else
      c ^= b >> 32;
    table[i & 255] += (uint32_t)c;
    a ^= table[(i * 7) & 255];
  }
  sink = a + b + c;
}

/* --- a byte-code interpreter: switch dispatch over a small program --- */
enum { PUSH, ADD, SUB, DUP, JNZ, SWAP, POP, HALT };
static __attribute__((noinline)) void byte_code(void) {
  static const uint8_t code[] = {PUSH, 0,   PUSH, 250,  DUP, PUSH, 3,   ADD, POP, SWAP, PUSH,
                                 2,    ADD, SWAP, PUSH, 1,   SUB,  DUP, JNZ, 4,   HALT};
  int64_t stack[16];
  for (int round = 0; round < 10; ++round) {
    int sp = 0, pc = 0;
    for (;;) {
      switch (code[pc++]) {
        case PUSH:
          stack[sp++] = code[pc++];
          break;
        case ADD:
          --sp;
          stack[sp - 1] += stack[sp];
          break;
        case SUB:
          --sp;
          stack[sp - 1] -= stack[sp];
          break;
        case DUP:
          stack[sp] = stack[sp - 1];
          ++sp;
          break;
        case JNZ:
          if (stack[--sp])
            pc = code[pc];
          else
            ++pc;
          break;
        case SWAP: {
          int64_t t = stack[sp - 1];
          stack[sp - 1] = stack[sp - 2];
          stack[sp - 2] = t;
          break;
        }
        case POP:
          --sp;
          break;
        default:
          sink = (uint64_t)stack[0];
          goto done;
      }
    }
  done:;
  }
}

static __attribute__((noinline)) uint64_t fib_of(unsigned n) {
  return n < 2 ? n : fib_of(n - 1) + fib_of(n - 2);
}
static void fib(void) { sink = fib_of(21); }

static int compare(const void* a, const void* b) {
  const uint32_t x = *(const uint32_t*)a, y = *(const uint32_t*)b;
  return x < y ? -1 : x > y;
}
static void quick_sort(void) {
  static uint32_t values[2000];
  uint32_t seed = 12345;
  for (int i = 0; i < 2000; ++i) values[i] = seed = seed * 1664525u + 1013904223u;
  qsort(values, 2000, sizeof(values[0]), compare);
  sink = values[1000];
}

/* --- SHA-256 (FIPS 180-4) over 4 KiB --- */
static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
static uint32_t ror(uint32_t x, int n) { return x >> n | x << (32 - n); }
static void sha_block(uint32_t* h, const uint8_t* p) {
  uint32_t w[64], v[8];
  for (int i = 0; i < 16; ++i)
    w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 | (uint32_t)p[4 * i + 2] << 8 |
           p[4 * i + 3];
  for (int i = 16; i < 64; ++i)
    w[i] = w[i - 16] + (ror(w[i - 15], 7) ^ ror(w[i - 15], 18) ^ w[i - 15] >> 3) + w[i - 7] +
           (ror(w[i - 2], 17) ^ ror(w[i - 2], 19) ^ w[i - 2] >> 10);
  memcpy(v, h, sizeof(v));
  for (int i = 0; i < 64; ++i) {
    const uint32_t t1 = v[7] + (ror(v[4], 6) ^ ror(v[4], 11) ^ ror(v[4], 25)) +
                        ((v[4] & v[5]) ^ (~v[4] & v[6])) + K[i] + w[i];
    const uint32_t t2 = (ror(v[0], 2) ^ ror(v[0], 13) ^ ror(v[0], 22)) +
                        ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
    for (int j = 7; j > 0; --j) v[j] = v[j - 1];
    v[4] += t1;
    v[0] = t1 + t2;
  }
  for (int i = 0; i < 8; ++i) h[i] += v[i];
}
static void sha256(void) {
  static uint8_t data[4096];
  uint32_t h[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                   0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  for (int i = 0; i < 64; ++i) sha_block(h, data + 64 * i);
  sink = h[0];
}

static uint8_t *from, *to;
static void memory_copy(void) { memcpy(to, from, 1 << 20); }
static void rep_movsb(void) {
  void *d = to, *s = from;
  uint64_t n = 1 << 20;
  __asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(n)::"memory");
}
static void strings(void) {
  uint64_t sum = 0;
  for (int i = 0; i < 100; ++i) {
    sum += strlen((char*)from + i);
    sum += (uint64_t)(uintptr_t)memchr(from, 0, 2000);
    sum += (uint64_t)memcmp(from, to, 1000);
  }
  sink = sum;
}

/* --- SSE2 matrix product, 64 by 64 doubles --- */
typedef double v2d __attribute__((vector_size(16)));
static double ma[64][64] __attribute__((aligned(16))), mb[64][64] __attribute__((aligned(16))),
    mc[64][64] __attribute__((aligned(16)));
static void matrix(void) {
  for (int i = 0; i < 64; ++i)
    for (int j = 0; j < 64; j += 2) {
      v2d sum = {0, 0};
      for (int k = 0; k < 64; ++k) {
        const v2d a = {ma[i][k], ma[i][k]};
        sum += a * *(const v2d*)&mb[k][j];
      }
      *(v2d*)&mc[i][j] = sum;
    }
  sink = (uint64_t)mc[3][3];
}

static void x87(void) {
  long double x = 1.5L, y = 0.25L;
  for (int i = 0; i < 2000; ++i) {
    x = x * 1.0000001L + y;
    y = y / 1.0000003L - x * 1e-9L;
    if (x > 1e6L) x = 1.0L;
  }
  sink = (uint64_t)x;
}

static void page_faults(void) {
  uint8_t* p = mmap(NULL, 64 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  for (int i = 0; i < 64; ++i) p[i * 4096] = 1;
  munmap(p, 64 * 4096);
}

static int ping[2], pong[2];
static void pipes(void) {
  char c = 1;
  for (int i = 0; i < 20; ++i)
    if (write(ping[1], &c, 1) != 1 || read(pong[0], &c, 1) != 1) exit(1);
}

static void system_call(void) {
  for (int i = 0; i < 100; ++i) sink = (uint64_t)getppid();
}

/* --- code that was never run before: 500 functions written, called once --- */
static uint8_t* fresh;
static void fresh_code(void) {
  uint8_t* p = fresh;
  uint64_t sum = 0;
  for (int i = 0; i < 500; ++i) {
    uint8_t* const start = p;
    for (int j = 0; j < 6; ++j) {
      *p++ = 0x48;
      *p++ = 0x8d;
      *p++ = 0x47;
      *p++ = (uint8_t)(i + j); /* lea rax, [rdi + i + j] */
      *p++ = 0x48;
      *p++ = 0x31;
      *p++ = 0xc7; /* xor rdi, rax */
    }
    *p++ = 0xc3;
    p = (uint8_t*)(((uintptr_t)p + 15) & ~(uintptr_t)15);
    sum += ((uint64_t (*)(uint64_t))(void*)start)(sum);
  }
  sink = sum;
}

struct workload {
  const char* name;
  void (*run)(void);
} workloads[] = {{"integer mix", integer_mix},
                 {"byte-code", byte_code},
                 {"fib", fib},
                 {"qsort", quick_sort},
                 {"sha256", sha256},
                 {"memcpy", memory_copy},
                 {"sse2 matrix", matrix},
                 {"x87", x87},
                 {"rep movsb", rep_movsb},
                 {"strings", strings},
                 {"fresh code", fresh_code},
                 {"page faults", page_faults},
                 {"pipe ping-pong", pipes},
                 {"getppid", system_call}};

static void set_up(void) {
  from = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  to = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  fresh =
      mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  memset(from, 'x', 1 << 20);
  memset(to, 'x', 1 << 20);
  from[1900] = 0;
  to[1900] = 0;
  for (int i = 0; i < 64; ++i)
    for (int j = 0; j < 64; ++j) ma[i][j] = i + j, mb[i][j] = i - j;
  if (pipe(ping) != 0 || pipe(pong) != 0) exit(1);
  if (fork() == 0) {
    char c;
    close(ping[1]);
    while (read(ping[0], &c, 1) == 1)
      if (write(pong[1], &c, 1) != 1) break;
    _exit(0);
  }
}

int main(int argc, char** argv) {
  const uint64_t budget = (argc > 1 ? strtoull(argv[1], NULL, 10) : 200) * 1000000;
  set_up();
  for (unsigned w = 0; w < sizeof(workloads) / sizeof(workloads[0]); ++w) {
    int wanted = argc <= 2;
    for (int i = 2; i < argc; ++i) wanted |= strcmp(argv[i], workloads[w].name) == 0;
    if (!wanted) continue;
    workloads[w].run();
    const uint64_t before = ticks();
    for (int i = 0; i < 4; ++i) workloads[w].run();
    const uint64_t per = (ticks() - before) / 4;
    uint64_t count = 0, best = ~0ull;
    const uint64_t start = now_ns();
    uint64_t last = start;
    do {
      workloads[w].run();
      ++count;
      const uint64_t t = now_ns();
      if (t - last < best) best = t - last;
      last = t;
    } while (last - start < budget);
    printf(
        "{\"name\": \"%s\", \"ns\": %.1f, \"best_ns\": %llu, \"iterations\": %llu, \"ticks\": "
        "%llu}\n",
        workloads[w].name, (double)(last - start) / (double)count, (unsigned long long)best,
        (unsigned long long)count, (unsigned long long)per);
    fflush(stdout);
  }
  return 0;
}

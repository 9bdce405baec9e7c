# What a Debian root must answer in a machine exactly as under the host's kernel: languages, numbers, hashes, files,
# processes. Nothing here depends on the time, the kernel or the processor's name.
set -e
export LC_ALL=C TMPDIR=/tmp
echo "== bash"
for ((i = 0, sum = 0; i < 20000; i++)); do : $((sum += i * i % 7)); done; echo $sum
printf '%s\n' {5..1} | sort | tr '\n' ' '; echo
mapfile -t lines < <(seq 1 500); echo ${#lines[@]} ${lines[499]}
echo "== coreutils"
seq 1 20000 | sha256sum; seq 1 20000 | md5sum; head -c 100000 /dev/zero | gzip -9n | sha1sum
seq 1 3000 | sort -R --random-source=/dev/zero | sort -n | awk '{s+=$1; q+=$1*$1; r+=sqrt($1)} END {printf "%d %d %.9f\n", s, q, r}'
find /etc -name 'pass*' | sort; tar -C /etc -cf - passwd group | tar -tf -
echo "== python"
python3 - <<'P'
import decimal, fractions, hashlib, json, math, multiprocessing, os, random, re, struct, threading, zlib
decimal.getcontext().prec = 60
print(decimal.Decimal(2).sqrt(), sum(fractions.Fraction(1, n) for n in range(1, 40)))
print(pow(3, 12345, 10**40), math.factorial(60), [round(math.sin(x) * math.exp(x / 9), 12) for x in range(8)])
print(repr(math.pi * 1e300), 0.1 + 0.2, float("nan") != float("nan"), math.fsum([.1] * 10), (2 ** 0.5).hex())
generator = random.Random(42)
data = bytes(generator.randrange(256) for _ in range(50000))
print(hashlib.sha3_256(data).hexdigest(), hashlib.blake2b(data).hexdigest()[:32], zlib.crc32(data), zlib.adler32(data))
print(json.loads(json.dumps({"a": [1, 2.5, None, "ü"]})), re.sub(r"(\w+) (\w+)", r"\2 \1", "hello world"))
print(sorted(generator.sample(range(100000), 10)), struct.pack("<dfq", 1.5, 2.25, -3).hex())
counter = []
threads = [threading.Thread(target=lambda n=n: counter.append(n * n)) for n in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
print(sorted(counter))
with multiprocessing.Pool(3) as pool:
    print(pool.map(math.isqrt, range(0, 10**6, 99999)))
pid = os.fork()
if pid == 0:
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
P
echo "== perl"
perl -e 'my %h; $h{$_ % 17} += $_ ** 1.5 for 1..20000; printf "%s %.6f\n", $_, $h{$_} for sort { $a <=> $b } keys %h; print join(",", map { sprintf "%b", $_ } 1..9), "\n"; print scalar reverse("abc"), " ", "aXbXc" =~ s/X/-/gr, "\n"'
perl -MDigest::SHA=sha512_hex -MPOSIX=floor -e 'print sha512_hex("x" x 9999), " ", floor(-2.5), " ", 10 ** 20, " ", 1e15 / 7, "\n"'
echo "== openssl"
head -c 200000 /dev/zero | openssl dgst -sha512; head -c 200000 /dev/zero | openssl dgst -blake2b512
seq 1 5000 | openssl enc -aes-256-cbc -K 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f -iv 00000000000000000000000000000000 | sha256sum
seq 1 5000 | openssl enc -chacha20 -K 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f -iv 00000000000000000000000000000000 | sha256sum
cd /tmp; openssl genpkey -algorithm ed25519 -out k.pem 2>/dev/null; openssl pkey -in k.pem -pubout -out p.pem; echo text >t
openssl pkeyutl -sign -inkey k.pem -rawin -in t -out s; openssl pkeyutl -verify -pubin -inkey p.pem -rawin -in t -sigfile s
openssl genrsa -out r.pem 1024 2>/dev/null; openssl rsa -in r.pem -check -noout
echo "== gcc"
cat >a.c <<'C'
#include <math.h>
#include <signal.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static sigjmp_buf back;
static void caught(int n) { siglongjmp(back, n); }
static int order(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }
int main(void) {
  int v[1000]; uint32_t s = 1;
  for (int i = 0; i < 1000; i++) v[i] = (int)((s = s * 1664525u + 1013904223u) >> 8);
  qsort(v, 1000, sizeof *v, order);
  unsigned long h = 5381; for (int i = 0; i < 1000; i++) h = h * 33 + (unsigned)v[i];
  printf("%lu %.15g %.15Lg %a\n", h, sin(1e6) * tan(2.5) + pow(3.3, 4.4), sqrtl(2.0L) * expl(1.0L), cbrt(10));
  float f = 1; double m[9] = {0};
  for (int i = 0; i < 100; i++) { f = f * 1.01f + 0.5f; for (int j = 0; j < 9; j++) m[j] += j * f / (i + 1); }
  printf("%.6f %.9f %d %lld\n", (double)f, m[8], (int)-2.7, (long long)1e18);
  int n; volatile int zero = 0; struct sigaction a = {.sa_handler = caught};
  sigaction(SIGFPE, &a, 0); sigaction(SIGSEGV, &a, 0); sigaction(SIGILL, &a, 0);
  if ((n = sigsetjmp(back, 1)) == 0) printf("%d\n", 100 / zero); else printf("signal %d\n", n);
  if ((n = sigsetjmp(back, 1)) == 0) *(volatile int *)(intptr_t)zero = 1; else printf("signal %d\n", n);
  if ((n = sigsetjmp(back, 1)) == 0) __builtin_trap(); else printf("signal %d\n", n);
  __int128 w = (__int128)0x123456789abcdefULL * 0xfedcba987654321ULL;
  printf("%llx %llx %d %d\n", (unsigned long long)(w >> 64), (unsigned long long)w, __builtin_popcountll(h), __builtin_clz(77));
  return 0;
}
C
for level in -O0 -O2 -O3; do gcc $level -o a a.c -lm; ./a; done
gcc -O2 -m64 -S -o - a.c | grep -c call
echo "== sqlite"
sqlite3 t.db <<'Q'
create table t(a integer primary key, b text, c real);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 5000) insert into t select i, hex(i * 7919 % 1000), sqrt(i) from n;
create index x on t(b);
select count(*), count(distinct b), round(sum(c), 6), max(b) from t;
select b, count(*) from t group by b order by 2 desc, 1 limit 5;
begin; delete from t where a % 3 = 0; rollback; select count(*) from t; pragma integrity_check;
Q
rm -f a a.c k.pem p.pem r.pem s t t.db
echo "== end"

#include "differential/native.h"

#include <fcntl.h>
#include <immintrin.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <new>

#include "base/check.h"

// The only way into the code under test and out of it. Entry loads everything that UserState holds
// and leaves by IRETQ, which also serialises, so that freshly written code is fetched anew; the way
// out is taken by the signal handler.
extern "C" {
void smol_native_enter(const smol::isa::UserState* state);
extern char smol_native_leave[];
extern smol::u64 smol_native_saved_rsp;
}
asm(R"(
  .text
  .globl smol_native_enter, smol_native_leave
smol_native_enter:
  push %rbx
  push %rbp
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, smol_native_saved_rsp(%rip)
  fxrstor64 144(%rdi)
  mov $0x2b, %eax
  mov %eax, %ds
  mov %eax, %es
  mov $0x20000840, %eax
  wrfsbase %rax
  mov $0x20001900, %eax
  wrgsbase %rax
  pushq $0x2b
  pushq 32(%rdi)
  pushq 136(%rdi)
  pushq 656(%rdi)
  pushq 128(%rdi)
  mov 0(%rdi), %rax
  mov 8(%rdi), %rcx
  mov 16(%rdi), %rdx
  mov 24(%rdi), %rbx
  mov 40(%rdi), %rbp
  mov 48(%rdi), %rsi
  mov 64(%rdi), %r8
  mov 72(%rdi), %r9
  mov 80(%rdi), %r10
  mov 88(%rdi), %r11
  mov 96(%rdi), %r12
  mov 104(%rdi), %r13
  mov 112(%rdi), %r14
  mov 120(%rdi), %r15
  mov 56(%rdi), %rdi
  iretq
smol_native_leave:
  mov smol_native_saved_rsp(%rip), %rsp
  fninit
  pushq $0x1f80
  ldmxcsr (%rsp)
  pop %rax
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbp
  pop %rbx
  ret
  .bss
  .balign 8
  .globl smol_native_saved_rsp
smol_native_saved_rsp:
  .quad 0
)");

namespace smol::isa {

static_assert(offsetof(UserState, rip) == 128 && offsetof(UserState, rflags) == 136 &&
              offsetof(UserState, fx) == 144 && offsetof(UserState, cs) == 656);
static_assert(kFsBase == 0x20000840 && kGsBase == 0x20001900);

struct NativeShared {
  std::atomic<u32> at;  // the request that runs
  u32 first, count;
  u8 data[kDataSize];
  NativeRequest requests[kBatch];
  NativeAnswer answers[kBatch];
};

namespace {

constexpr int kSignals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGALRM};
constexpr size_t kFxBytes = 416;  // up to XMM15; the kernel uses the rest of the image itself

// The child's own state. Plain globals: the handler runs with the guest's FS, so nothing
// thread-local may be touched.
u64 saved_fs, saved_gs;
NativeShared* child_shared;
u64 sequence_number, alarmed_sequence;
volatile bool in_guest;

__attribute__((target("fsgsbase"))) void on_signal(int signal, siginfo_t*, void* context) {
  // The kernel leaves AC as it was; the compiler's unaligned accesses would fault.
  __builtin_ia32_writeeflags_u64(__builtin_ia32_readeflags_u64() & ~0x40000ull);
  auto* const uc = static_cast<ucontext_t*>(context);
  auto& g = uc->uc_mcontext.gregs;
  if (signal == SIGALRM) {
    if (!in_guest || alarmed_sequence != sequence_number) {
      alarmed_sequence = sequence_number;
      return;
    }
  } else if (!in_guest) {
    _exit(3);
  }
  _writefsbase_u64(saved_fs);
  _writegsbase_u64(saved_gs);
  in_guest = false;
  Outcome& out = child_shared->answers[child_shared->at.load(std::memory_order_relaxed)].outcome;
  static constexpr int kOrder[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                     REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                     REG_R12, REG_R13, REG_R14, REG_R15};
  for (int i = 0; i < 16; ++i) out.state.gpr[i] = static_cast<u64>(g[kOrder[i]]);
  out.state.rip = static_cast<u64>(g[REG_RIP]);
  out.state.rflags = static_cast<u64>(g[REG_EFL]);
  std::memcpy(out.state.fx, uc->uc_mcontext.fpregs, kFxBytes);
  out.vector = static_cast<u8>(g[REG_TRAPNO]);
  out.error_code = static_cast<u32>(g[REG_ERR]);
  out.address = static_cast<u64>(g[REG_CR2]);
  out.ended = signal != SIGALRM;
  g[REG_RIP] = static_cast<greg_t>(reinterpret_cast<u64>(smol_native_leave));
  g[REG_EFL] = 0x202;
  out.state.cs = static_cast<u64>(g[REG_CSGSFS]) & 0xffff;
  g[REG_CSGSFS] = static_cast<greg_t>((static_cast<u64>(g[REG_CSGSFS]) & ~u64{0xffff}) | kCode64);
}

void install_handlers() {
  static u8 stack[65536];
  const stack_t alternate{.ss_sp = stack, .ss_flags = 0, .ss_size = sizeof(stack)};
  if (sigaltstack(&alternate, nullptr) != 0) _exit(4);
  struct sigaction action{};
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  for (int signal : kSignals)
    if (sigaction(signal, &action, nullptr) != 0) _exit(4);
}

void run_batch(u8* code) {
  NativeShared& s = *child_shared;
  u8* const data = reinterpret_cast<u8*>(kData);
  for (u32 i = s.first; i < s.count; ++i) {
    s.at.store(i, std::memory_order_relaxed);
    const NativeRequest& request = s.requests[i];
    NativeAnswer& answer = s.answers[i];
    answer.outcome.ended = false;
    std::memcpy(data, s.data, kWritablePages * kPageSize);
    std::memset(code, kFiller, kPageSize);
    std::memcpy(code + (request.state.rip & (kPageSize - 1)), request.code, request.size);
    ++sequence_number;
    in_guest = true;
    smol_native_enter(&request.state);
    std::memcpy(answer.data, data, sizeof(answer.data));
  }
  s.at.store(s.count, std::memory_order_relaxed);
}

[[noreturn]] __attribute__((target("fsgsbase"))) void child_main(NativeShared* shared, int in,
                                                                 int out, int code_file) {
  child_shared = shared;
  saved_fs = _readfsbase_u64();
  saved_gs = _readgsbase_u64();
  void* const code = mmap(nullptr, kPageSize, PROT_READ | PROT_WRITE, MAP_SHARED, code_file, 0);
  const auto fixed = [](u64 address, u64 size, int protection, int flags, int fd) {
    return mmap(reinterpret_cast<void*>(address), size, protection, flags | MAP_FIXED_NOREPLACE, fd,
                0) == reinterpret_cast<void*>(address);
  };
  if (code == MAP_FAILED ||
      !fixed(kCodePage, kPageSize, PROT_READ | PROT_EXEC, MAP_SHARED, code_file) ||
      !fixed(kData, kDataSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE,
             -1))
    _exit(4);
  std::memcpy(reinterpret_cast<void*>(kData), shared->data, kDataSize);
  if (mprotect(reinterpret_cast<void*>(kData + kWritablePages * kPageSize), kPageSize, PROT_READ) !=
      0)
    _exit(4);
  install_handlers();
  const itimerval tick{.it_interval = {0, 300000}, .it_value = {0, 300000}};
  if (setitimer(ITIMER_REAL, &tick, nullptr) != 0) _exit(4);
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) != 0) _exit(4);
  for (;;) {
    char byte;
    const ssize_t got = read(in, &byte, 1);
    if (got < 0) continue;  // the timer
    if (got == 0) break;
    run_batch(static_cast<u8*>(code));
    while (write(out, &byte, 1) != 1) {
    }
  }
  // exit_group is not allowed any more: the plain exit system call.
  asm volatile("syscall" ::"a"(60), "D"(0) : "rcx", "r11", "memory");
  __builtin_unreachable();
}

}  // namespace

Result<std::unique_ptr<NativeRunner>> NativeRunner::create() {
  constexpr unsigned long kFsgsbase = 1 << 1;  // HWCAP2_FSGSBASE
  if ((getauxval(AT_HWCAP2) & kFsgsbase) == 0)
    return fail("the host's kernel does not let user code set the FS base");
  std::unique_ptr<NativeRunner> runner(new NativeRunner);
  TRY_ASSIGN(runner->mapping_,
             base::Mapping::map(base::align_up(sizeof(NativeShared), kPageSize),
                                PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0,
                                "memory shared with the native runner"));
  runner->shared_ = new (runner->mapping_.data()) NativeShared{};
  u8* const read_only = runner->shared_->data + kWritablePages * kPageSize;
  for (u64 i = 0; i < kPageSize; ++i) read_only[i] = static_cast<u8>(i * 37 + (i >> 5));
  TRY_ASSIGN(runner->code_file_, base::create_memfd("isa-code", kPageSize));
  TRY(runner->spawn());
  return runner;
}

Result<> NativeRunner::spawn() {
  int to[2], from[2];
  if (pipe2(to, O_CLOEXEC) != 0) return fail_errno("creating a pipe");
  base::UniqueFd child_in(to[0]);
  to_child_.reset(to[1]);
  if (pipe2(from, O_CLOEXEC) != 0) return fail_errno("creating a pipe");
  from_child_.reset(from[0]);
  base::UniqueFd child_out(from[1]);
  child_ = fork();
  if (child_ < 0) return fail_errno("forking the native runner");
  if (child_ == 0) {
    to_child_.reset();
    from_child_.reset();
    child_main(shared_, child_in.get(), child_out.get(), code_file_.get());
  }
  return {};
}

void NativeRunner::stop_child() {
  to_child_.reset();
  from_child_.reset();
  if (child_ > 0) {
    kill(child_, SIGKILL);
    waitpid(child_, nullptr, 0);
  }
  child_ = -1;
}

NativeRunner::~NativeRunner() { stop_child(); }

NativeRequest& NativeRunner::request(u32 i) { return shared_->requests[i]; }
const NativeAnswer& NativeRunner::answer(u32 i) const { return shared_->answers[i]; }
u8* NativeRunner::data() { return shared_->data; }

void NativeRunner::start(u32 count) {
  shared_->first = 0;
  shared_->count = count;
  shared_->at.store(0);
  const char byte = 'r';
  CHECK(write(to_child_.get(), &byte, 1) == 1);
}

void NativeRunner::finish() {
  for (;;) {
    char byte;
    if (read(from_child_.get(), &byte, 1) == 1) return;
    // The child died in a sequence (a system call, say): that one did not end; the others go on in
    // a new child.
    const u32 at = shared_->at.load();
    stop_child();
    CHECK(spawn().has_value());
    if (at >= shared_->count) return;
    shared_->answers[at].outcome.ended = false;
    shared_->first = at + 1;
    byte = 'r';
    CHECK(write(to_child_.get(), &byte, 1) == 1);
  }
}

}  // namespace smol::isa

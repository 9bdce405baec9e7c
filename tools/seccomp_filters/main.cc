// Makes the monitor's seccomp filters while it is built: libseccomp turns policy.h into BPF
// programs, and they are written as arrays for src/sandbox. So a start pays one system call a
// thread, and the monitor does not carry a compiler of filters. Usage: seccomp_filters OUTPUT
#include <errno.h>
#include <linux/filter.h>
#include <seccomp.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "policy.h"

namespace {

using namespace seccomp_filters;

[[noreturn]] void die(const std::string& what, int error) {
  std::fprintf(stderr, "seccomp_filters: %s: %s\n", what.c_str(),
               std::strerror(error < 0 ? -error : error));
  std::exit(1);
}

void add_rule(scmp_filter_ctx context, const Rule& rule) {
  const int number = seccomp_syscall_resolve_name(rule.name);
  if (number < 0) die(std::string("unknown system call ") + rule.name, EINVAL);
  std::vector<scmp_arg_cmp> tests;
  for (const Test& test : rule.tests)
    tests.push_back({.arg = test.argument,
                     .op = SCMP_CMP_MASKED_EQ,
                     .datum_a = test.mask,
                     .datum_b = test.value});
  if (const int error = seccomp_rule_add_array(context, SCMP_ACT_ALLOW, number,
                                               static_cast<unsigned>(tests.size()), tests.data());
      error < 0)
    die(std::string("rule for ") + rule.name, error);
}

std::vector<sock_filter> compile(const Thread& thread, std::uint32_t otherwise) {
  scmp_filter_ctx context = seccomp_init(otherwise);
  if (context == nullptr) die("seccomp_init", ENOMEM);
  seccomp_attr_set(context, SCMP_FLTATR_CTL_OPTIMIZE, 2);  // a tree of comparisons, not a row
  for (const Group* const group : thread.groups)
    for (const Rule& rule : *group) add_rule(context, rule);
  seccomp_rule_add(context, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
  std::FILE* const file = std::tmpfile();
  if (file == nullptr) die("temporary file", errno);
  if (const int error = seccomp_export_bpf(context, fileno(file)); error < 0) die("export", error);
  seccomp_release(context);
  std::vector<sock_filter> program(static_cast<std::size_t>(::lseek(fileno(file), 0, SEEK_END)) /
                                   sizeof(sock_filter));
  if (::pread(fileno(file), program.data(), program.size() * sizeof(sock_filter), 0) < 0)
    die("read back", errno);
  std::fclose(file);
  return program;
}

void write(std::FILE* out, const char* name, const char* suffix,
           const std::vector<sock_filter>& program) {
  std::fprintf(out, "constexpr sock_filter k%s%s[] = {\n", name, suffix);
  for (const sock_filter& step : program)
    std::fprintf(out, "{%u,%u,%u,%u},\n", step.code, step.jt, step.jf, step.k);
  std::fprintf(out, "};\n");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  std::FILE* const out = std::fopen(argv[1], "w");
  if (out == nullptr) die(argv[1], errno);
  for (const Thread& thread : kThreads) {
    write(out, thread.name, "Kill", compile(thread, SCMP_ACT_KILL_PROCESS));
    write(out, thread.name, "Log", compile(thread, SCMP_ACT_LOG));
  }
  if (std::fclose(out) != 0) die(argv[1], errno);
}

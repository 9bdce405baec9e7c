// How fast the interpreter runs: small compiled loops as bare guest code, each to its end, as
// millions of instructions a second of CPU time. Prints one JSON object; each result is checked
// against the same function run on the host.
#include <fmt/format.h>
#include <time.h>

#include <vector>

#include "cpu/interp/test_machine.h"
#include "guest_loops.h"

namespace {

using smol::cpu::TestMachine;

constexpr u64 kHaltAt = 0xf000;
constexpr u64 kCodeAt = TestMachine::kCode;
constexpr u64 kHeap = 2 * smol::kMiB;

struct Loop {
  const char* name;
  const void* function;
  u64 amount;
  u64 (*host)(u64 n, u8* heap);
};

double cpu_seconds() {
  timespec now;
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

}  // namespace

int main(int argc, char** argv) {
  const Loop loops[] = {
      {"fib", reinterpret_cast<const void*>(guest_fib), 27,
       [](u64 n, u8*) { return guest_fib(n); }},
      {"mix", reinterpret_cast<const void*>(guest_mix), 3'000'000,
       [](u64 n, u8*) { return guest_mix(n); }},
      {"sort", reinterpret_cast<const void*>(guest_sort), 200'000,
       [](u64 n, u8* heap) { return guest_sort(n, reinterpret_cast<u32*>(heap)); }},
      {"sieve", reinterpret_cast<const void*>(guest_sieve), 1'000'000, guest_sieve},
      {"bytecode", reinterpret_cast<const void*>(guest_bytecode), 300'000, guest_bytecode},
      {"copy", reinterpret_cast<const void*>(guest_copy), 200, guest_copy},
      {"pages", reinterpret_cast<const void*>(guest_pages), 3'000'000, guest_pages},
      {"matrix", reinterpret_cast<const void*>(guest_matrix), 160, guest_matrix},
      {"x87", reinterpret_cast<const void*>(guest_x87), 1'000'000, guest_x87},
      {"search", reinterpret_cast<const void*>(guest_search), 20'000, guest_search},
  };
  bool good = true;
  std::string out = "{";
  for (const Loop& loop : loops) {
    if (argc > 1 && std::string_view(argv[1]) != loop.name) continue;
    TestMachine machine;
    std::vector<u8> heap(TestMachine::kRam, 0);
    machine.put(kCodeAt, std::span(__start_guest_loops, __stop_guest_loops));
    machine.put(kHaltAt, {0xf4});
    machine.store<u64>(TestMachine::kStack - 8, kHaltAt);
    auto& cpu = machine.cpu();
    cpu.gpr[smol::cpu::kRsp] = TestMachine::kStack - 8;
    cpu.gpr[smol::cpu::kRdi] = loop.amount;
    cpu.gpr[smol::cpu::kRsi] = kHeap;
    const u64 entry =
        kCodeAt + static_cast<u64>(static_cast<const u8*>(loop.function) - __start_guest_loops);
    const double start = cpu_seconds();
    const smol::cpu::Stop stop = machine.run_at(entry, u64{1} << 40);
    const double seconds = cpu_seconds() - start;
    const bool right = stop == smol::cpu::Stop::kHalt &&
                       cpu.gpr[smol::cpu::kRax] == loop.host(loop.amount, heap.data());
    good = good && right;
    out += fmt::format(
        "{}\"{}\": {{\"instructions\": {}, \"seconds\": {:.4f}, \"mips\": {:.1f}, \"right\": {}}}",
        out.size() > 1 ? ", " : "", loop.name, cpu.retired, seconds,
        static_cast<double>(cpu.retired) / seconds * 1e-6, right);
  }
  fmt::print("{}}}\n", out);
  return good ? 0 : 1;
}

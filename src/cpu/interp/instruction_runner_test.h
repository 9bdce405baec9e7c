// Runs one instruction from its bytes through decoder, lowering and handler, on any host. On x86-64
// hosts also on the host's own processor from the same state, and compares everything that it can
// change: general registers, arithmetic flags, x87, XMM, MXCSR and a piece of memory.
// Floating-point exceptions must be masked for the native side.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "cpu/decoder/instruction.h"
#include "cpu/interp/fpu_state.h"
#include "cpu/interp/handler.h"
#include "cpu/interp/host_fp.h"

namespace smol::cpu::test {

struct alignas(2048) MachineState {
  u8 image[512];                  // FXSAVE64
  u64 rax = 0, rcx = 0, rdx = 0;  // at 512
  u64 rsi = 0;                    // address of memory
  u64 rflags = 0x202;
  u64 unused[3];
  u8 memory[768];  // at 576; the whole never crosses a page
};

inline thread_local bool instruction_retired = false;
SMOL_HANDLER_ABI inline HandlerResult after_instruction(Cpu*, const Op*) {
  instruction_retired = true;
#if !SMOL_TAIL_CALLS
  return nullptr;
#endif
}

class InstructionRunner {
 public:
  InstructionRunner() : cpu_(std::make_unique<Cpu>()), tlb_(kTlbEntries) {
    cpu_->cr0 |= kCr0Ne | kCr0Pe;
    cpu_->cr4 |= kCr4Osfxsr | kCr4Osxmmexcpt | kCr4Osxsave;
    cpu_->xcr0 = 3;
    cpu_->tlb = tlb_.data();
  }

  Cpu& cpu() { return *cpu_; }
  BlockMode& mode() { return mode_; }
  const char* name() const { return name_; }

  // False when the instruction raised an exception (in cpu().fault).
  bool run_ours(const std::vector<u8>& bytes, MachineState& state) {
    Instruction instruction;
    if (decode(bytes.data(), static_cast<u32>(bytes.size()), DecodeMode{}, instruction) !=
            DecodeStatus::kOk ||
        instruction.length != bytes.size()) {
      ADD_FAILURE() << "does not decode";
      return false;
    }
    name_ = opcode_name(instruction.opcode);
    Lowered ops[2];
    Op block[2];
    prepare(instruction, ops[0].op);
    if (!lower_simd(instruction, mode_, true, ops[0]) &&
        !lower_x87(instruction, mode_, true, ops[0])) {
      ADD_FAILURE() << name_ << " is not lowered";
      return false;
    }
    block[0] = ops[0].op;
    block[1].handler = after_instruction;
    load(state);
    enter_guest_fp(*cpu_);
    instruction_retired = false;
    cpu_->stop = Stop::kNone;
#if SMOL_TAIL_CALLS
    block[0].handler(cpu_.get(), &block[0]);
#else
    for (const Op* op = &block[0]; op != nullptr;) op = op->handler(cpu_.get(), op);
#endif
    leave_guest_fp(*cpu_);
    store(state);
    return instruction_retired;
  }

 private:
  static void prepare(const Instruction& instruction, Op& op) {
    op.dst = instruction.operands[0].reg;
    op.src = instruction.operands[1].reg;
    op.aux = instruction.condition;
    op.immediate = instruction.immediate;
    op.length = instruction.length;
    op.flags |= kOpCode64;
    op.base = instruction.has_modrm_memory && instruction.memory.base < 16 ? instruction.memory.base
                                                                           : kZeroSlot;
    op.displacement = instruction.memory.displacement;
  }
  void load(const MachineState& state) {
    Cpu& cpu = *cpu_;
    load_x87_image(cpu, state.image, true);
    load_xmm_image(cpu, state.image, 16);
    cpu.mxcsr = base::load<u32>(state.image + 24);
    cpu.gpr[kRax] = state.rax;
    cpu.gpr[kRcx] = state.rcx;
    cpu.gpr[kRdx] = state.rdx;
    cpu.gpr[kRsi] = cpu.gpr[kRdi] = state.rsi;
    write_rflags(cpu, state.rflags);
    for (u64 page = state.rsi & ~u64{4095}; page <= state.rsi + sizeof(state.memory);
         page += 4096) {
      TlbEntry& entry = *tlb_slot(&cpu, page);
      entry.read_tag = entry.write_tag = page | cpu.tlb_generation;
      entry.addend = 0;
    }
  }
  void store(MachineState& state) {
    const Cpu& cpu = *cpu_;
    save_x87_image(cpu, state.image, true);
    save_xmm_image(cpu, state.image, 16);
    base::store<u32>(state.image + 24, cpu.mxcsr);
    state.rax = cpu.gpr[kRax];
    state.rcx = cpu.gpr[kRcx];
    state.rdx = cpu.gpr[kRdx];
    state.rflags = read_rflags(cpu);
    for (TlbEntry& entry : tlb_) entry = {};
  }

  std::unique_ptr<Cpu> cpu_;
  std::vector<TlbEntry> tlb_;
  BlockMode mode_;
  const char* name_ = "";
};

#if defined(__x86_64__)

class NativeCompare : public InstructionRunner {
 public:
  NativeCompare()
      : code_(static_cast<u8*>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))) {}
  ~NativeCompare() { munmap(code_, 4096); }

  void run_native(const std::vector<u8>& bytes, MachineState& state) {
    std::vector<u8> code = {0x49, 0x89, 0xfb, 0x49,
                            0x0f, 0xae, 0x0b};  // mov r11, rdi; fxrstor64 [r11]
    const auto add = [&](std::initializer_list<u8> more) { code.insert(code.end(), more); };
    add({0x49, 0x8b, 0x83, 0x00, 0x02, 0, 0});        // mov rax, [r11 + 512]
    add({0x49, 0x8b, 0x8b, 0x08, 0x02, 0, 0});        // mov rcx, [r11 + 520]
    add({0x49, 0x8b, 0x93, 0x10, 0x02, 0, 0});        // mov rdx, [r11 + 528]
    add({0x49, 0x8b, 0xb3, 0x18, 0x02, 0, 0});        // mov rsi, [r11 + 536]
    add({0x48, 0x89, 0xf7});                          // mov rdi, rsi
    add({0x41, 0xff, 0xb3, 0x20, 0x02, 0, 0, 0x9d});  // push [r11 + 544]; popfq
    code.insert(code.end(), bytes.begin(), bytes.end());
    add({0x9c, 0x41, 0x8f, 0x83, 0x20, 0x02, 0, 0});  // pushfq; pop [r11 + 544]
    add({0x49, 0x89, 0x83, 0x00, 0x02, 0, 0});        // mov [r11 + 512], rax
    add({0x49, 0x89, 0x8b, 0x08, 0x02, 0, 0});
    add({0x49, 0x89, 0x93, 0x10, 0x02, 0, 0});
    add({0x49, 0x0f, 0xae, 0x03, 0xdb, 0xe3, 0xc3});  // fxsave64 [r11]; fninit; ret
    std::memcpy(code_, code.data(), code.size());
    const u32 mxcsr = host_mxcsr();
    reinterpret_cast<void (*)(MachineState*)>(code_)(&state);
    set_host_mxcsr(mxcsr);
  }

  // Bytes of memory, from and to (multiples of 8), in which processors differ.
  void skip_memory(u32 from, u32 to) { skip_from_ = from, skip_to_ = to; }

  // Runs both and compares; false on a difference, which is reported.
  bool compare(const std::vector<u8>& bytes, const MachineState& start, u32 ignored_flags = 0,
               u16 ignored_status = 0) {
    MachineState native = start, ours = start;
    native.rsi = reinterpret_cast<u64>(native.memory);
    ours.rsi = reinterpret_cast<u64>(ours.memory);
    run_native(bytes, native);
    if (!run_ours(bytes, ours)) {
      ADD_FAILURE() << name() << ": raised " << int{cpu().fault.vector};
      return false;
    }
    std::string difference;
    const auto check = [&](const char* what, u64 a, u64 b) {
      if (a != b)
        difference += std::string(what) + ": native " + hex(a) + ", ours " + hex(b) + "\n";
    };
    check("rax", native.rax, ours.rax);
    check("rcx", native.rcx, ours.rcx);
    check("rdx", native.rdx, ours.rdx);
    check("flags", native.rflags & kArithmeticFlags & ~u64{ignored_flags},
          ours.rflags & kArithmeticFlags & ~u64{ignored_flags});
    check("fcw", base::load<u16>(native.image), base::load<u16>(ours.image));
    check("fsw", base::load<u16>(native.image + 2) & ~ignored_status,
          base::load<u16>(ours.image + 2) & ~ignored_status);
    check("ftw", native.image[4], ours.image[4]);
    check("mxcsr", base::load<u32>(native.image + 24), base::load<u32>(ours.image + 24));
    for (u32 i = 32; i < 416; i += 8)
      check(("image+" + std::to_string(i)).c_str(), base::load<u64>(native.image + i),
            base::load<u64>(ours.image + i));
    for (u32 i = 0; i < sizeof(native.memory); i += 8)
      if (i < skip_from_ || i >= skip_to_)
        check(("memory+" + std::to_string(i)).c_str(), base::load<u64>(native.memory + i),
              base::load<u64>(ours.memory + i));
    if (difference.empty()) return true;
    ADD_FAILURE() << name() << "\n" << difference << describe(start);
    return false;
  }

 private:
  static std::string hex(u64 value) {
    char text[24];
    std::snprintf(text, sizeof(text), "%016llx", static_cast<unsigned long long>(value));
    return text;
  }
  static std::string describe(const MachineState& state) {
    std::string text = "start: fcw " + hex(base::load<u16>(state.image)) + " fsw " +
                       hex(base::load<u16>(state.image + 2)) + " mxcsr " +
                       hex(base::load<u32>(state.image + 24)) + "\n";
    for (u32 i = 0; i < 3; ++i)
      text += "st" + std::to_string(i) + " " + hex(base::load<u16>(state.image + 40 + 16 * i)) +
              ":" + hex(base::load<u64>(state.image + 32 + 16 * i)) + "  xmm" + std::to_string(i) +
              " " + hex(base::load<u64>(state.image + 168 + 16 * i)) + ":" +
              hex(base::load<u64>(state.image + 160 + 16 * i)) + "\n";
    return text + "memory " + hex(base::load<u64>(state.memory + 8)) + ":" +
           hex(base::load<u64>(state.memory)) + "\n";
  }
  u8* code_;
  u32 skip_from_ = 0, skip_to_ = 0;
};

#endif

}  // namespace smol::cpu::test

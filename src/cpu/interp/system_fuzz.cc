// Hostile system software: random sequences of system instructions, raw bytes between them, over
// descriptor tables, TSS and registers that the input spoils. Whatever the guest does, the CPU must
// neither crash nor hang, and its state must stay one that a processor can have.
#include "base/check.h"
#include "cpu/interp/system_test_machine.h"

namespace smol::cpu::testing {
namespace {

class Input {
 public:
  Input(const u8* data, std::size_t size) : at_(data), end_(data + size) {}
  bool empty() const { return at_ == end_; }
  u8 byte() { return empty() ? 0 : *at_++; }
  u16 word() { return static_cast<u16>(byte() | (byte() << 8)); }
  u64 quad() {
    u64 value = 0;
    for (u32 i = 0; i < 8; ++i) value |= static_cast<u64>(byte()) << (8 * i);
    return value;
  }

 private:
  const u8* at_;
  const u8* end_;
};

// Instructions of the family, with register operands or [rsi]/[rbx]; one length byte first.
constexpr u8 kSnippets[][8] = {
    {2, 0x8e, 0xd8},        // mov ds, ax
    {2, 0x8e, 0xd0},        // mov ss, ax
    {2, 0x8e, 0xe1},        // mov fs, cx
    {2, 0x8c, 0xd2},        // mov dx, ss
    {1, 0xcf},              // iret
    {2, 0x48, 0xcf},        // iretq
    {1, 0xcb},              // retf
    {2, 0x48, 0xcb},        // retfq
    {3, 0xca, 0x10, 0x00},  // retf 16
    {2, 0xff, 0x1e},        // call far [rsi]
    {2, 0xff, 0x2b},        // jmp far [rbx]
    {3, 0x48, 0xff, 0x1e},  // call far m16:64
    {2, 0xcd, 0x30},        // int 0x30
    {1, 0xcc},              // int3
    {1, 0xf1},              // int1
    {2, 0x0f, 0x05},        // syscall
    {2, 0x0f, 0x07},        // sysret
    {3, 0x48, 0x0f, 0x07},  // sysretq
    {2, 0x0f, 0x34},        // sysenter
    {2, 0x0f, 0x35},        // sysexit
    {3, 0x0f, 0x22, 0xc0},  // mov cr0, rax
    {3, 0x0f, 0x22, 0xd9},  // mov cr3, rcx
    {3, 0x0f, 0x22, 0xe2},  // mov cr4, rdx
    {3, 0x0f, 0x20, 0xc0},  // mov rax, cr0
    {3, 0x0f, 0x23, 0xf8},  // mov dr7, rax
    {3, 0x0f, 0x23, 0xc0},  // mov dr0, rax
    {2, 0x0f, 0x30},        // wrmsr
    {2, 0x0f, 0x32},        // rdmsr
    {3, 0x0f, 0x00, 0xd8},  // ltr ax
    {3, 0x0f, 0x00, 0xd0},  // lldt ax
    {3, 0x0f, 0x01, 0x16},  // lgdt [rsi]
    {3, 0x0f, 0x01, 0x1e},  // lidt [rsi]
    {3, 0x0f, 0x01, 0x06},  // sgdt [rsi]
    {3, 0x0f, 0x02, 0xc8},  // lar
    {3, 0x0f, 0x03, 0xc8},  // lsl
    {3, 0x0f, 0x00, 0xe0},  // verr
    {3, 0x0f, 0x01, 0x3e},  // invlpg
    {3, 0x0f, 0x01, 0xf8},  // swapgs
    {1, 0x9d},              // popf
    {1, 0x9c},              // pushf
    {2, 0x0f, 0xa1},        // pop fs
    {1, 0x50},              // push rax
    {1, 0x58},              // pop rax
    {2, 0xf3, 0x6c},        // rep insb
    {2, 0xf3, 0x6f},        // rep outsd
    {1, 0xec},              // in al, dx
    {1, 0xef},              // out dx, eax
    {1, 0xfa},              // cli
    {1, 0xfb},              // sti
    {2, 0x8b, 0x06},        // mov eax, [rsi]
    {2, 0x89, 0x03},        // mov [rbx], eax
    {2, 0xf3, 0xa4},        // rep movsb
    {3, 0x0f, 0x01, 0xca},  // clac
    {3, 0x0f, 0x01, 0xd1},  // xsetbv
    {3, 0x0f, 0xb2, 0x06},  // lss eax, [rsi]
    {2, 0x0f, 0x0b},        // ud2
};
constexpr u32 kSnippetCount = sizeof(kSnippets) / sizeof(kSnippets[0]);

// Selectors and addresses that mean something, so that checks are passed as well as failed.
u64 interesting(Input& input) {
  static constexpr u64 kValues[] = {0,
                                    kCode64,
                                    kDataSel,
                                    kUserCode32,
                                    kUserData,
                                    kUserCode64,
                                    kTssSel,
                                    kCode32,
                                    kAbsent,
                                    kReadOnly,
                                    kConforming,
                                    kGate,
                                    kLdtSel,
                                    kCode16,
                                    kData16,
                                    kExecuteOnly,
                                    kBeyond,
                                    kCode,
                                    kUserCode,
                                    kData,
                                    kKernelStack - 64,
                                    kUserStack - 64,
                                    kPages,
                                    0x3ffffe,
                                    0x80050033,
                                    0x33,
                                    0x11,
                                    0x620,
                                    0x1006f0,
                                    0xc0000080,
                                    0xc0000102,
                                    0xd01,
                                    0x202,
                                    0x10302,
                                    u64{1} << 47,
                                    ~u64{0},
                                    0x2800080000000000};
  const u8 choice = input.byte();
  return choice < 200 ? kValues[choice % (sizeof(kValues) / sizeof(kValues[0]))] : input.quad();
}

void spoil(SystemMachine& m, Input& input) {
  for (u32 count = input.byte() & 7; count > 0; --count) {
    static constexpr u64 kTables[4] = {kGdt, kIdt, kTss, kIdt + 13 * 16};
    const u64 at = kTables[input.byte() & 3] + input.byte();
    m.put<u8>(at, input.byte());
  }
  Cpu& c = m.cpu();
  for (u32 i = 0; i < 8; ++i)
    if (i != kRsp) c.gpr[i] = interesting(input);
  for (u64 stack : {kKernelStack, kUserStack})
    for (u32 i = 1; i <= 8; ++i) m.put<u64>(stack - i * 8, interesting(input));
  if ((input.byte() & 1) != 0) c.gpr[kRsp] -= 64;
  const u64 rights = input.byte();
  if ((rights & 1) != 0) c.flags |= kFlagIopl;
  if ((rights & 2) != 0) c.flags |= kFlagAc;
  if ((rights & 4) != 0) c.flags |= kFlagTf;
  if ((rights & 8) != 0) c.cr0 |= kCr0Am;
  c.msr.star = (u64{0x18} << 48) | (u64{kCode64} << 32);
  c.msr.lstar = interesting(input);
  c.msr.sysenter_cs = kCode32;
  c.msr.sysenter_eip = kCode;
  for (u32 i = 0; i < 4; ++i) m.put<u64>(kData + i * 8, interesting(input));
}

void write_code(SystemMachine& m, Input& input, u64 at) {
  for (u32 i = 0; i < 24 && !input.empty(); ++i) {
    const u8 choice = input.byte();
    if (choice < 4 * kSnippetCount) {
      const u8* const snippet = kSnippets[choice % kSnippetCount];
      for (u8 j = 1; j <= snippet[0]; ++j) m.put<u8>(at++, snippet[j]);
    } else {
      m.put<u8>(at++, choice);
    }
  }
  m.put<u8>(at, 0xf4);
}

void check_state(const Cpu& c) {
  CHECK(c.cpl <= 3);
  CHECK((c.flags & 2) != 0 && (c.flags & kFlagVm) == 0);
  CHECK(((c.efer & kEferLma) != 0) == ((c.efer & kEferLme) != 0 && (c.cr0 & kCr0Pg) != 0));
  CHECK((c.cr0 & kCr0Pg) == 0 || (c.cr0 & kCr0Pe) != 0);
  CHECK(!c.long_mode() || (c.cr4 & kCr4Pae) != 0);
  CHECK(c.code64() || c.rip <= 0xffffffff);
  if (c.protected_mode() && c.cpl == 3) CHECK((c.segments[1].selector & 3) == 3);
  for (u32 i = 4; i < 6; ++i) CHECK(c.segment_base[i] == c.segments[i].base);
}

}  // namespace
}  // namespace smol::cpu::testing

extern "C" int LLVMFuzzerTestOneInput(const smol::u8* data, std::size_t size) {
  using namespace smol::cpu;
  using namespace smol::cpu::testing;
  static SystemMachine* const machine =
      new SystemMachine;  // one for all: making one costs more than an input
  SystemMachine& m = *machine;
  Input input(data, size);
  m.rewind();
  const smol::u8 mode = input.byte() % 5;
  if (mode < 2) m.long_mode();
  if (mode == 2 || mode == 3) m.protected_mode();
  if (mode == 4) m.real_mode();
  if (mode == 1 || mode == 3) m.user(mode == 1);
  spoil(m, input);
  write_code(m, input, kUserCode);
  write_code(m, input, kCode);
  m.engine().state_changed();
  smol::u32 accesses = 0;
  for (smol::u32 left = 40; left > 0; --left) {
    const smol::u64 before = m.cpu().retired;
    const Stop stop = m.engine().run(50);
    check_state(m.cpu());
    CHECK(m.cpu().retired - before <= 600);
    if (stop == Stop::kShutdown || stop == Stop::kHalt) break;
    if (stop == Stop::kIo) {
      if (++accesses > 64) break;
      m.engine().complete_io(0x5a5a5a5a5a5a5a5a);
    } else if (m.engine().can_interrupt()) {
      m.engine().interrupt(static_cast<smol::u8>(32 + left));
    }
  }
  return 0;
}

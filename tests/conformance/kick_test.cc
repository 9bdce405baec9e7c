// kick(): before a run, during it, at the same time as other exits, from many threads, and from a
// signal handler.
#include <atomic>
#include <chrono>

#include "machine.h"

namespace smol::conformance {
namespace {

SMOL_CONFORMANCE(Kick);

constexpr u8 kSpin[] = {
    // 1:
    0x48, 0xff, 0xc0,  // inc rax
    0xeb, 0xfb,        // jmp 1b
};
constexpr u8 kOutForever[] = {
    // 1:
    0xe6, 0x10,  // out 0x10, al
    0xeb, 0xfc,  // jmp 1b
};
constexpr u8 kHaltForever[] = {
    0xfb,        // sti
                 // 1:
    0xf4,        // hlt
    0xeb, 0xfd,  // jmp 1b
};

TEST_P(Kick, BeforeARunIsNotLost) {
  Machine machine(GetParam());
  machine.start_long(kSpin);
  machine.vcpu().kick();
  machine.run_to<ExitInterrupted>();
}

TEST_P(Kick, SeveralBeforeARunAreOne) {
  Machine machine(GetParam());
  machine.start_long(kOutForever);
  machine.vcpu().kick();
  machine.vcpu().kick();
  machine.run_to<ExitInterrupted>();
  machine.run_to_out(0x10);
}

TEST_P(Kick, DuringARunEndsIt) {
  Machine machine(GetParam());
  machine.start_long(kSpin);
  for (int i = 0; i < 20; i++) {
    std::thread other([&] {
      std::this_thread::sleep_for(std::chrono::microseconds(300 * i));
      machine.vcpu().kick();
    });
    machine.run_to<ExitInterrupted>();
    other.join();
  }
  EXPECT_GT(machine.get_state().general.gpr[kRax], 0u);
}

TEST_P(Kick, EndsAHaltInsideTheBackEnd) {
  Machine machine(GetParam(), {.irqchip = Irqchip::kFull});
  machine.start_long(kHaltForever);
  std::thread other([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    machine.vcpu().kick();
  });
  machine.run_to<ExitInterrupted>();
  other.join();
}

// A state taken between a port read and the kick's report must not eat the kick.
TEST_P(Kick, SurvivesGetState) {
  Machine machine(GetParam());
  machine.start_long(kOutForever);
  machine.run_to_out(0x10);
  machine.vcpu().kick();
  machine.get_state();
  machine.run_to<ExitInterrupted>();
  machine.run_to_out(0x10);
}

// Every kick is followed by an ExitInterrupted, however it falls among other exits.
TEST_P(Kick, NoneIsLostAmongOtherExits) {
  Machine machine(GetParam());
  machine.start_long(kOutForever);
  std::atomic<u32> seen = 0;
  std::thread other([&] {
    for (u32 i = 1; i <= 200; i++) {
      machine.vcpu().kick();
      while (seen.load() < i && !machine.hung()) std::this_thread::yield();
    }
  });
  while (seen.load() < 200 && !HasFailure()) {
    const Exit exit = machine.run();
    if (std::holds_alternative<ExitInterrupted>(exit)) {
      if (machine.hung()) break;
      seen.fetch_add(1);
    } else {
      ASSERT_TRUE(std::holds_alternative<ExitPortIo>(exit)) << Machine::describe(exit);
    }
  }
  other.join();
  EXPECT_GE(seen.load(), 200u);
  EXPECT_FALSE(machine.hung());
}

}  // namespace
}  // namespace smol::conformance

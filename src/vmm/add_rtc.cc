// The real-time clock. Its model computes when it is asked; its interrupts come from a timer on the
// device loop that each write arms for the next one that is due.
#include "arch/x86_64/memory_map.h"
#include "base/event_loop.h"
#include "base/time.h"
#include "devices/legacy/rtc.h"
#include "vmm/machine.h"

namespace smol::vmm {
namespace {

using devices::legacy::Rtc;

class TimedRtc final : public devices::Device {
 public:
  TimedRtc(devices::InterruptLine& line, u64 low_memory)
      : rtc_(line, base::realtime_ns, low_memory) {}

  Result<> start(base::EventLoop& loop) {
    TRY_ASSIGN(timer_, base::Timer::create(loop, [this] {
                 rtc_.poll();
                 arm();
               }));
    return {};
  }
  std::string_view name() const override { return rtc_.name(); }
  // Reading register C acknowledges an interrupt, so reads arm as well.
  void read(u64 offset, ByteSpan data) override {
    rtc_.read(offset, data);
    if (offset == 1) arm();
  }
  void write(u64 offset, ConstByteSpan data) override {
    rtc_.write(offset, data);
    if (offset == 1) arm();
  }

 private:
  void arm() {
    const std::lock_guard lock(arm_mutex_);  // the loop's thread and several vCPUs come here
    const auto deadline = rtc_.next_deadline();
    if (!deadline) {
      if (std::exchange(armed_, false)) timer_->disarm();
      return;
    }
    armed_ = true;
    const u64 now = base::realtime_ns();
    timer_->arm(*deadline > now ? *deadline - now : 0);
  }

  Rtc rtc_;
  std::mutex arm_mutex_;
  bool armed_ = false;
  std::unique_ptr<base::Timer> timer_;
};

}  // namespace

Result<> Machine::add_rtc() {
  auto rtc = std::make_unique<TimedRtc>(line(arch::x86_64::kRtcIrq), memory_->regions()[0].size);
  TRY(rtc->start(*loop_));
  return add_port_device(std::move(rtc), Rtc::kPort, Rtc::kSize);
}

}  // namespace smol::vmm

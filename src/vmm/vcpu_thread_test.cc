// The state machine of a vCPU's thread, over a vCPU that runs nothing.
#include "vmm/vcpu_thread.h"

#include <gtest/gtest.h>

#include <condition_variable>

namespace smol::vmm {
namespace {

using namespace hypervisor;

// run() gives what was queued, else waits for a kick. A kick is never lost.
class FakeVcpu final : public Vcpu {
 public:
  Result<Exit> run() override {
    std::unique_lock lock(mutex_);
    ++runs_;
    changed_.notify_all();
    changed_.wait(lock, [this] { return kicked_ || !exits_.empty(); });
    if (std::exchange(kicked_, false)) return ExitInterrupted{};
    Result<Exit> exit = std::move(exits_.front());
    exits_.pop_front();
    return exit;
  }
  void kick() override {
    const std::lock_guard lock(mutex_);
    kicked_ = true;
    changed_.notify_all();
  }
  void give(Result<Exit> exit) {
    const std::lock_guard lock(mutex_);
    exits_.push_back(std::move(exit));
    changed_.notify_all();
  }
  // Until the guest has been entered that many times.
  void wait_runs(u64 count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return runs_ >= count; });
  }
  u64 runs() {
    const std::lock_guard lock(mutex_);
    return runs_;
  }

  Result<CpuState> get_state() override { return CpuState{}; }
  Result<> set_state(const CpuState&) override { return {}; }
  Result<> inject_interrupt(u8) override { return {}; }
  bool can_inject_interrupt() override { return true; }
  void request_interrupt_window(bool) override {}
  Result<> inject_nmi() override {
    ++nmis;
    return {};
  }
  void guest_was_paused() override { ++resumes; }
  std::atomic<int> nmis{0}, resumes{0};

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Result<Exit>> exits_;
  bool kicked_ = false;
  u64 runs_ = 0;
};

class VcpuThreadTest : public testing::Test, public VcpuExits {
 protected:
  VcpuThreadTest() {
    auto vcpu = std::make_unique<FakeVcpu>();
    vcpu_ = vcpu.get();
    thread_ = std::make_unique<VcpuThread>(3, std::move(vcpu), *this);
  }
  ~VcpuThreadTest() override { thread_.reset(); }
  Result<bool> serve(u32 id, const Exit& exit) override {
    EXPECT_EQ(id, 3u);
    ++served_;
    return !std::holds_alternative<ExitShutdown>(exit);
  }
  void vcpu_failed(u32, const Error& error) override { failure_ = error.chain(); }

  FakeVcpu* vcpu_ = nullptr;
  std::unique_ptr<VcpuThread> thread_;
  std::atomic<int> served_{0};
  std::string failure_;
};

TEST_F(VcpuThreadTest, PausesAndResumes) {
  EXPECT_EQ(thread_->state(), VcpuState::kCreated);
  thread_->start();
  for (int i = 0; i < 200; ++i) {
    thread_->pause();
    ASSERT_TRUE(thread_->wait_until(VcpuState::kPaused));
    const u64 runs = vcpu_->runs();
    thread_->resume();
    ASSERT_TRUE(thread_->wait_until(VcpuState::kRunning));
    vcpu_->wait_runs(runs + 1);
    EXPECT_EQ(vcpu_->resumes, i + 1);
  }
}

TEST_F(VcpuThreadTest, StartsPausedWithoutRunning) {
  thread_->start(true);
  ASSERT_TRUE(thread_->run_on([](Vcpu& vcpu) -> Result<> { return vcpu.set_state(CpuState{}); }));
  EXPECT_EQ(vcpu_->runs(), 0u);
  thread_->resume();
  vcpu_->wait_runs(1);
}

TEST_F(VcpuThreadTest, MessagesReachARunningVcpu) {
  thread_->start();
  thread_->nmi();
  ASSERT_TRUE(thread_->run_on([](Vcpu&) -> Result<> { return {}; }));  // behind the NMI
  EXPECT_EQ(vcpu_->nmis, 1);
  const auto told = thread_->run_on([](Vcpu&) -> Result<> { return fail("as asked"); });
  ASSERT_FALSE(told);
  EXPECT_EQ(told.error().message(), "as asked");
}

TEST_F(VcpuThreadTest, StopsFromEveryState) {
  thread_->stop();
  thread_->start(true);
  EXPECT_FALSE(thread_->wait_until(VcpuState::kRunning));
  thread_->join();
  EXPECT_EQ(vcpu_->runs(), 0u);
  EXPECT_FALSE(thread_->run_on([](Vcpu&) -> Result<> { return {}; }));
}

TEST_F(VcpuThreadTest, StopsWhilePaused) {
  thread_->start();
  thread_->pause();
  ASSERT_TRUE(thread_->wait_until(VcpuState::kPaused));
  thread_->stop();
  thread_->join();
  EXPECT_EQ(thread_->state(), VcpuState::kStopped);
}

TEST_F(VcpuThreadTest, TheMachinesEndStopsIt) {
  thread_->start();
  vcpu_->give(ExitShutdown{});
  thread_->join();
  EXPECT_EQ(served_, 1);
  EXPECT_EQ(failure_, "");
}

TEST_F(VcpuThreadTest, AFailureIsTold) {
  thread_->start();
  vcpu_->give(fail("broken"));
  thread_->join();
  EXPECT_EQ(failure_, "broken");
  EXPECT_EQ(thread_->state(), VcpuState::kStopped);
}

TEST_F(VcpuThreadTest, CountsExitsByPlace) {
  u8 byte = 0;
  thread_->start();
  vcpu_->give(ExitPortIo{.port = 0x3f8, .write = true, .size = 1, .data = ByteSpan(&byte, 1)});
  vcpu_->give(
      ExitMmio{.address = GuestPhysical(0xd0000070), .write = true, .data = ByteSpan(&byte, 1)});
  vcpu_->give(
      ExitMmio{.address = GuestPhysical(0xd0000050), .write = true, .data = ByteSpan(&byte, 1)});
  vcpu_->give(ExitShutdown{});
  thread_->join();
  const VcpuStats stats = thread_->stats();
  EXPECT_EQ(thread_->all_exits(), 4u);
  EXPECT_EQ(stats.ports, (std::map<u16, u64>{{0x3f8, 1}}));
  EXPECT_EQ(stats.mmio_pages, (std::map<u64, u64>{{0xd0000000, 2}}));
}

}  // namespace
}  // namespace smol::vmm

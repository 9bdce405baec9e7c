#include "devices/legacy/i8042.h"

#include <algorithm>

namespace smol::devices::legacy {
namespace {

constexpr std::size_t kNoise = 32;        // more than Linux's I8042_BUFFER_SIZE of 16
constexpr std::size_t kBufferLimit = 64;  // unread answers; older ones are dropped
constexpr u8 kStatusOutputFull = 0x01, kStatusIdle = 0x1c;  // system flag, command last, not locked
constexpr u8 kReadConfiguration = 0x20, kWriteConfiguration = 0x60, kTestAuxiliary = 0xa9,
             kSelfTest = 0xaa, kTestKeyboard = 0xab, kReadOutputPort = 0xd0,
             kWriteOutputPort = 0xd1, kPulseReset = 0xfe;
constexpr u8 kSelfTestPassed = 0x55, kNoSuchPort = 0xff;
constexpr u8 kOutputPortRun = 0x01, kOutputPortA20 = 0x02;

}  // namespace

I8042::I8042(MachineEvents& events) : events_(events), output_(kNoise, 0) {}

void I8042::Port::read(u64 offset, ByteSpan data) {
  std::ranges::fill(data, u8{0xff});
  data[0] = is_command_ ? controller_.read_status() : controller_.read_data();
}

void I8042::Port::write(u64 offset, ConstByteSpan data) {
  if (is_command_)
    controller_.write_command(data[0]);
  else
    controller_.write_data(data[0]);
}

u8 I8042::read_status() {
  const std::scoped_lock lock(mutex_);
  return static_cast<u8>(kStatusIdle | (output_.empty() ? 0 : kStatusOutputFull));
}

u8 I8042::read_data() {
  const std::scoped_lock lock(mutex_);
  if (!output_.empty()) {
    last_ = output_.front();
    output_.pop_front();
  }
  return last_;
}

void I8042::answer(u8 value) {
  if (output_.size() >= kBufferLimit) output_.pop_front();
  output_.push_back(value);
}

void I8042::write_command(u8 command) {
  if (command == kPulseReset) {
    events_.reset_requested();
    return;
  }
  const std::scoped_lock lock(mutex_);
  pending_ = 0;
  switch (command) {
    case kReadConfiguration:
      answer(configuration_);
      break;
    case kSelfTest:
      answer(kSelfTestPassed);
      break;
    case kTestKeyboard:
    case kTestAuxiliary:
      answer(kNoSuchPort);
      break;
    case kReadOutputPort:
      answer(kOutputPortRun | kOutputPortA20);
      break;
    case kWriteConfiguration:
    case kWriteOutputPort:
      pending_ = command;
      break;
    default:
      break;  // enabling and disabling ports that have nothing behind them
  }
}

void I8042::write_data(u8 value) {
  bool reset = false;
  {
    const std::scoped_lock lock(mutex_);
    if (pending_ == kWriteConfiguration) configuration_ = value;
    reset = pending_ == kWriteOutputPort && (value & kOutputPortRun) == 0;
    pending_ = 0;
  }
  if (reset) events_.reset_requested();
}

}  // namespace smol::devices::legacy

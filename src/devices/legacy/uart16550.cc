// Register model in three layers: registers call receiver and transmitter, those set conditions,
// and update_interrupt() derives the line's level from the conditions after every access. Character
// time-out is reported at once when fewer characters than the trigger level wait, since no time
// passes on this line.
#include "devices/legacy/uart16550.h"

#include <algorithm>

namespace smol::devices::legacy {
namespace {

enum Register : u64 {
  kData = 0,
  kInterruptEnable,
  kIdentification,
  kLineControl,
  kModemControl,
  kLineStatus,
  kModemStatus,
  kScratch
};

constexpr u8 kIerReceived = 1, kIerTransmit = 2, kIerLine = 4, kIerModem = 8;
constexpr u8 kIirNone = 1, kIirModem = 0, kIirTransmit = 2, kIirReceived = 4, kIirLine = 6,
             kIirTimeout = 12;
constexpr u8 kIirFifo = 0xc0;
constexpr u8 kFcrEnable = 1, kFcrClearReceive = 2;
constexpr u8 kLcrBreak = 0x40, kLcrDivisor = 0x80;
constexpr u8 kMcrDtr = 1, kMcrRts = 2, kMcrOut1 = 4, kMcrOut2 = 8, kMcrLoop = 0x10;
constexpr u8 kLsrReady = 1, kLsrOverrun = 2, kLsrBreak = 0x10, kLsrTransmitEmpty = 0x60,
             kLsrFifoError = 0x80;
constexpr u8 kMsrCts = 0x10, kMsrDsr = 0x20, kMsrRi = 0x40, kMsrDcd = 0x80;
constexpr u8 kMsrConnected = kMsrCts | kMsrDsr | kMsrDcd;

}  // namespace

Uart16550::Uart16550(InterruptLine& line, Output output, InputRoom input_room)
    : line_(line),
      output_(std::move(output)),
      input_room_(std::move(input_room)),
      modem_inputs_(kMsrConnected) {}

void Uart16550::read(u64 offset, ByteSpan data) {
  bool room = false;
  {
    const std::scoped_lock lock(mutex_);
    for (std::size_t i = 0; i < data.size(); ++i) {
      data[i] = offset + i < kSize ? read_register(offset + i) : 0xff;
    }
    room = queue_was_full_ && queue_.size() <= kQueueSize / 2;
    if (room) queue_was_full_ = false;
  }
  if (room && input_room_) input_room_();
}

void Uart16550::write(u64 offset, ConstByteSpan data) {
  const std::scoped_lock lock(mutex_);
  for (std::size_t i = 0; i < data.size() && offset + i < kSize; ++i)
    write_register(offset + i, data[i]);
}

std::size_t Uart16550::offer_input(ConstByteSpan bytes) {
  const std::scoped_lock lock(mutex_);
  const std::size_t taken = std::min(bytes.size(), kQueueSize - queue_.size());
  queue_.insert(queue_.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(taken));
  if (taken < bytes.size()) queue_was_full_ = true;
  refill();
  update_interrupt();
  return taken;
}

u8 Uart16550::read_register(u64 offset) {
  const bool divisor = (line_control_ & kLcrDivisor) != 0;
  u8 value = 0;
  switch (offset) {
    case kData:
      value = divisor ? static_cast<u8>(divisor_) : take_received();
      break;
    case kInterruptEnable:
      value = divisor ? static_cast<u8>(divisor_ >> 8) : interrupt_enable_;
      break;
    case kIdentification:
      value = interrupt_identification();
      if (value == kIirTransmit) thr_empty_pending_ = false;
      value |= fifo_on_ ? kIirFifo : 0;
      break;
    case kLineControl:
      value = line_control_;
      break;
    case kModemControl:
      value = modem_control_;
      break;
    case kLineStatus:
      value = line_status();
      overrun_ = 0;
      if (!fifo_.empty()) fifo_.front().errors = 0;
      break;
    case kModemStatus:
      value = modem_inputs_ | modem_deltas_;
      modem_deltas_ = 0;
      break;
    case kScratch:
      value = scratch_;
      break;
    default:
      value = 0xff;
      break;
  }
  update_interrupt();
  return value;
}

void Uart16550::write_register(u64 offset, u8 value) {
  const bool divisor = (line_control_ & kLcrDivisor) != 0;
  switch (offset) {
    case kData:
      if (divisor)
        divisor_ = static_cast<u16>((divisor_ & 0xff00) | value);
      else
        transmit(value);
      break;
    case kInterruptEnable:
      if (divisor) {
        divisor_ = static_cast<u16>((divisor_ & 0xff) | (value << 8));
        break;
      }
      // Enabling the transmitter's interrupt while it is empty raises it.
      if ((value & ~interrupt_enable_ & kIerTransmit) != 0) thr_empty_pending_ = true;
      interrupt_enable_ = value & 0xf;
      break;
    case kIdentification:
      write_fifo_control(value);
      break;
    case kLineControl:
      write_line_control(value);
      break;
    case kModemControl:
      write_modem_control(value);
      break;
    case kScratch:
      scratch_ = value;
      break;
    default:
      break;  // line and modem status are read-only here
  }
  update_interrupt();
}

void Uart16550::write_fifo_control(u8 value) {
  static constexpr u8 kTriggers[] = {1, 4, 8, 14};
  const bool on = (value & kFcrEnable) != 0;
  if (on != fifo_on_ || (on && (value & kFcrClearReceive) != 0)) {
    fifo_.clear();
    overrun_ = 0;
  }
  fifo_on_ = on;
  trigger_ = on ? kTriggers[value >> 6] : 1;
  refill();
}

void Uart16550::write_modem_control(u8 value) {
  modem_control_ = value & 0x1f;
  if ((modem_control_ & kMcrLoop) == 0) {
    set_modem_inputs(kMsrConnected);
    refill();
    return;
  }
  u8 inputs = 0;
  if ((value & kMcrRts) != 0) inputs |= kMsrCts;
  if ((value & kMcrDtr) != 0) inputs |= kMsrDsr;
  if ((value & kMcrOut1) != 0) inputs |= kMsrRi;
  if ((value & kMcrOut2) != 0) inputs |= kMsrDcd;
  set_modem_inputs(inputs);
}

void Uart16550::write_line_control(u8 value) {
  const bool break_begins = (value & ~line_control_ & kLcrBreak) != 0;
  line_control_ = value;
  if (break_begins && (modem_control_ & kMcrLoop) != 0) receive({0, kLsrBreak});
}

void Uart16550::set_modem_inputs(u8 inputs) {
  const u8 changed = modem_inputs_ ^ inputs;
  // RI counts only when it ends; the others on every change.
  u8 deltas = static_cast<u8>((changed & ~kMsrRi) >> 4);
  if ((changed & modem_inputs_ & kMsrRi) != 0) deltas |= kMsrRi >> 4;
  modem_deltas_ |= deltas;
  modem_inputs_ = inputs;
}

void Uart16550::transmit(u8 value) {
  if ((modem_control_ & kMcrLoop) != 0) {
    receive({value, 0});
  } else if (output_) {
    output_({&value, 1});
  }
  thr_empty_pending_ = true;
}

void Uart16550::receive(Received character) {
  if (fifo_.size() < fifo_depth()) {
    fifo_.push_back(character);
    return;
  }
  overrun_ = kLsrOverrun;
  if (!fifo_on_) fifo_.back() = character;  // without FIFO the new one replaces the unread one
}

void Uart16550::refill() {
  if ((modem_control_ & kMcrLoop) != 0) return;  // the input pin is disconnected
  while (!queue_.empty() && fifo_.size() < fifo_depth()) {
    fifo_.push_back({queue_.front(), 0});
    queue_.pop_front();
  }
}

u8 Uart16550::take_received() {
  if (fifo_.empty()) return 0;
  const u8 value = fifo_.front().value;
  fifo_.pop_front();
  refill();
  return value;
}

u8 Uart16550::line_status() const {
  u8 status = kLsrTransmitEmpty | overrun_;
  if (fifo_.empty()) return status;
  status |= kLsrReady | fifo_.front().errors;
  if (fifo_on_ && std::ranges::any_of(fifo_, [](const Received& r) { return r.errors != 0; })) {
    status |= kLsrFifoError;
  }
  return status;
}

u8 Uart16550::interrupt_identification() const {
  const bool line_error = overrun_ != 0 || (!fifo_.empty() && fifo_.front().errors != 0);
  if ((interrupt_enable_ & kIerLine) != 0 && line_error) return kIirLine;
  if ((interrupt_enable_ & kIerReceived) != 0 && !fifo_.empty()) {
    return fifo_.size() >= trigger_ ? kIirReceived : kIirTimeout;
  }
  if ((interrupt_enable_ & kIerTransmit) != 0 && thr_empty_pending_) return kIirTransmit;
  if ((interrupt_enable_ & kIerModem) != 0 && modem_deltas_ != 0) return kIirModem;
  return kIirNone;
}

void Uart16550::update_interrupt() {
  const bool level = interrupt_identification() != kIirNone;
  if (level == line_level_) return;
  line_level_ = level;
  line_.set_level(level);
}

}  // namespace smol::devices::legacy

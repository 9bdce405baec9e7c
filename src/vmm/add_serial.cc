// The 16550 at COM1. Output goes out on the vCPU's thread (a slow reader slows the guest, nothing
// is dropped); input comes from the device loop.
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include "arch/x86_64/memory_map.h"
#include "base/log.h"
#include "devices/legacy/uart16550.h"
#include "vmm/machine.h"

namespace smol::vmm {

using devices::legacy::Uart16550;

Result<> Machine::add_serial() {
  const ConsoleConfig& serial = config_.serial;
  if (serial.mode == ConsoleMode::kOff) return {};
  if (serial.mode == ConsoleMode::kTty) serial_out_ = STDOUT_FILENO;
  if (serial.mode == ConsoleMode::kFile) {
    TRY_ASSIGN(serial_file_, base::open_file(serial.file, O_WRONLY | O_CREAT | O_TRUNC));
    serial_out_ = serial_file_.get();
  }
  serial_log_ = ConsoleLog::of(serial_out_, serial.limit);
  auto uart = std::make_unique<Uart16550>(
      line(arch::x86_64::kSerialIrq), [this](ConstByteSpan bytes) { write_serial(bytes); },
      [this] { loop_->post([this] { read_serial_input(); }); });
  uart_ = uart.get();
  TRY(add_port_device(std::move(uart), Uart16550::kCom1, Uart16550::kSize));
  if (serial.mode != ConsoleMode::kTty) return {};
  if (::isatty(STDIN_FILENO) != 0) {
    TRY_ASSIGN(terminal_, base::RawTerminal::enter(STDIN_FILENO));
  }
  return loop_->add(STDIN_FILENO, EPOLLIN, [this](u32) { read_serial_input(); });
}

void Machine::read_serial_input() {
  if (serial_held_.empty()) {
    u8 buffer[1024];
    pollfd ready{.fd = STDIN_FILENO, .events = POLLIN, .revents = 0};
    if (::poll(&ready, 1, 0) <= 0) return;
    const ssize_t got = ::read(STDIN_FILENO, buffer, sizeof(buffer));
    if (got <= 0) return loop_->remove(STDIN_FILENO);
    serial_held_.assign(buffer, buffer + got);
  }
  const std::size_t taken = uart_->offer_input(serial_held_);
  serial_held_.erase(serial_held_.begin(),
                     serial_held_.begin() + static_cast<std::ptrdiff_t>(taken));
  // Not all taken: the UART calls when it has room. Until then standard input waits.
  if (const auto set = loop_->modify(STDIN_FILENO, serial_held_.empty() ? EPOLLIN : 0); !set)
    base::log_error("serial input: {}", set.error().chain());
}

void Machine::write_serial(ConstByteSpan bytes) {
  if (const auto room = serial_log_.make_room(bytes.size()); !room)
    base::log_warn("{}", room.error().chain());
  while (serial_out_ >= 0 && !bytes.empty() && !stopping_.load(std::memory_order_relaxed)) {
    pollfd ready{.fd = serial_out_, .events = POLLOUT, .revents = 0};
    if (::poll(&ready, 1, 100) <= 0) continue;
    const ssize_t put = ::write(serial_out_, bytes.data(), bytes.size());
    if (put < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (put < 0) {
      base::log_warn("serial output: {}", Error::last_errno("cannot write").message());
      serial_out_ = -1;
      return;
    }
    bytes = bytes.subspan(static_cast<std::size_t>(put));
    serial_log_.wrote(static_cast<u64>(put));
  }
}

}  // namespace smol::vmm

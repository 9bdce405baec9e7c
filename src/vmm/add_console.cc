// The virtio console.
#include <fcntl.h>
#include <unistd.h>

#include "devices/virtio/console/console.h"
#include "vmm/machine.h"

namespace smol::vmm {

using namespace devices::virtio;

Result<> Machine::add_console() {
  int in = -1, out = -1;
  base::UniqueFd file;
  ConsoleSize size;
  switch (config_.console.mode) {
    case ConsoleMode::kOff:
      return {};
    case ConsoleMode::kNull:
      break;
    case ConsoleMode::kTty: {
      in = STDIN_FILENO;
      out = STDOUT_FILENO;
      if (::isatty(STDIN_FILENO) != 0) {
        TRY_ASSIGN(terminal_, base::RawTerminal::enter(STDIN_FILENO));
        const base::WindowSize window = base::RawTerminal::size(STDIN_FILENO);
        size = {window.columns, window.rows};
      }
      break;
    }
    case ConsoleMode::kFile: {
      TRY_ASSIGN(file, base::open_file(config_.console.file, O_WRONLY | O_CREAT | O_TRUNC));
      out = file.get();
      break;
    }
  }
  TRY_ASSIGN(auto backend, FdConsoleBackend::create(in, out));
  TRY_ASSIGN(auto console, Console::create(*loop_, std::move(backend), size));
  console_ = console.get();
  return add_virtio(std::move(console));
}

}  // namespace smol::vmm

// The values of smol-vmm's flags: any text either gives a setting that validate() judges, or an
// error with words in it.
#include <cstddef>
#include <cstdlib>
#include <iterator>
#include <string>

#include "vmm/options.h"

namespace {

using namespace smol;

template <class T>
void require_words(const Result<T>& result) {
  if (!result && result.error().chain().empty()) std::abort();
}

// Random bytes seldom spell a key; half of the inputs pick words instead, one a byte.
constexpr std::string_view kWords[] = {"path=",
                                       "readonly=",
                                       "image_type=",
                                       "serial=",
                                       "cid=",
                                       "socket=",
                                       "boot=",
                                       "max=",
                                       "model=",
                                       "size=",
                                       "shared=",
                                       "src=",
                                       "file=",
                                       "mode=",
                                       "tap=",
                                       "mac=",
                                       "mtu=",
                                       "fd=",
                                       "id=",
                                       "ip=",
                                       "mask=",
                                       "publish=",
                                       "allow=",
                                       "dns=",
                                       "bw_size=",
                                       "bw_refill_time=",
                                       "ops_size=",
                                       "queue_size=",
                                       "num_queues=",
                                       "on",
                                       "off",
                                       "user",
                                       "tap",
                                       "segment",
                                       "raw",
                                       "qcow2",
                                       "0",
                                       "1",
                                       "3",
                                       "32",
                                       "33",
                                       "4294967295",
                                       "18446744073709551615",
                                       "18446744073709551616",
                                       "16777216T",
                                       "512M",
                                       "K",
                                       "-1",
                                       "[",
                                       "]",
                                       ",",
                                       ",",
                                       ",",
                                       "=",
                                       "\"",
                                       ":",
                                       "/",
                                       ".",
                                       "tcp:127.0.0.1:80:80",
                                       "10.0.0.0/8",
                                       "host",
                                       "tty",
                                       "52:54:00:12:34:56",
                                       "@a"};

std::string spell(const unsigned char* data, std::size_t size) {
  std::string text;
  for (std::size_t i = 0; i < size; ++i) text += kWords[data[i] % std::size(kWords)];
  return text;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string text = data[0] < 128
                               ? std::string(reinterpret_cast<const char*>(data + 1), size - 1)
                               : spell(data + 1, size - 1);
  vmm::MachineConfig config;
  config.kernel = "kernel";
  switch (data[0] % 9) {
    case 0:
      require_words(vmm::parse_disk(text));
      break;
    case 1:
      require_words(vmm::parse_vsock(text));
      break;
    case 2:
      require_words(vmm::parse_cpus(text, config));
      break;
    case 3:
      require_words(vmm::parse_memory(text, config));
      break;
    case 4:
      require_words(vmm::parse_rng(text, config));
      break;
    case 5:
      require_words(vmm::parse_console("--serial", text));
      break;
    case 6:
      require_words(vmm::parse_net(text));
      break;
    case 7:
      require_words(vmm::parse_size("size", text));
      break;
    case 8:
      require_words(vmm::parse_mac(text));
      break;
  }
  require_words(vmm::validate(config));
  return 0;
}

// Any words as smol-vmm's command line: a configuration, help or a usage error, and nothing is
// touched. Half of the bytes choose real flags and keys, so that the option texts behind them are
// reached.
#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <string>
#include <vector>

#include "flags.h"

namespace {

constexpr const char* kWords[] = {"--kernel=k",
                                  "--cpus",
                                  "--memory",
                                  "--disk",
                                  "--net",
                                  "--share",
                                  "--balloon",
                                  "--vsock",
                                  "--serial",
                                  "--console",
                                  "--rng",
                                  "--accel",
                                  "--tables",
                                  "--api-socket=path=a",
                                  "--event-monitor",
                                  "--after-reset",
                                  "--no-shutdown",
                                  "--stats",
                                  "--started-at",

                                  "-v",
                                  "boot=",
                                  "max=",
                                  "size=",
                                  "path=",
                                  "readonly=on",
                                  "image_type=raw",
                                  "image_type=qcow2",
                                  "mode=user",
                                  "mode=tap",
                                  "mode=segment",
                                  "publish=[tcp:127.0.0.1:8080:80]",
                                  "allow=[10.0.0.0/8]",
                                  "mac=52:54:00:00:00:01",
                                  "mtu=",
                                  "num_queues=",
                                  "queue_size=",
                                  "bw_size=",
                                  "tag=",
                                  "uid=",
                                  "gid=",
                                  "cid=",
                                  "socket=",
                                  "file=",
                                  "id=",
                                  "fd=",
                                  "[",
                                  "]",
                                  "\"",
                                  ",",
                                  "=",
                                  "off",
                                  "tty",
                                  "null",
                                  "1G",
                                  "512M",
                                  "0",
                                  "18446744073709551616",
                                  "-1",
                                  "--firmware",
                                  "--help",
                                  "--version"};

// The parser tells its errors itself.
class Quiet {
 public:
  Quiet() {
    const int null = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
    for (int fd = 1; fd <= 2; ++fd) {
      kept_[fd - 1] = ::dup(fd);
      ::dup2(null, fd);
    }
    ::close(null);
  }
  ~Quiet() {
    std::fflush(stdout);
    for (int fd = 1; fd <= 2; ++fd) {
      ::dup2(kept_[fd - 1], fd);
      ::close(kept_[fd - 1]);
    }
  }

 private:
  int kept_[2];
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const smol::u8* data, std::size_t size) {
  std::vector<std::string> words = {"smol-vmm"};
  for (std::size_t i = 0; i < size && words.size() < 48; ++i) {
    const smol::u8 choice = data[i];
    if (choice == 0) {
      words.emplace_back();
    } else if (choice >= 128) {
      const std::string word = kWords[choice % std::size(kWords)];
      // A flag begins a word; the rest adds to the one that is there.
      if (word.starts_with("-") || (choice & 64) != 0)
        words.push_back(word);
      else
        words.back() += (words.back().empty() ? "" : ",") + word;
    } else {
      words.back() += static_cast<char>(choice);
    }
  }
  words[0] = "smol-vmm";
  std::vector<char*> argv;
  for (std::string& word : words) {
    // The one flag whose reading opens a file.
    if (word.find("--log-f") != std::string::npos) return 0;
    argv.push_back(word.data());
  }
  argv.push_back(nullptr);
  const Quiet quiet;
  const auto parsed = smol_vmm::parse_flags(static_cast<int>(words.size()), argv.data());
  if (parsed.exit_status && *parsed.exit_status != 0 && *parsed.exit_status != 2) std::abort();
  return 0;
}

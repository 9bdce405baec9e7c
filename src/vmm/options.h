// Cloud Hypervisor's spelling of device options: comma separated `key=value`, read strictly: an unknown, doubled or not yet
// supported key is refused by name.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "vmm/config.h"

namespace smol::vmm {

class OptionList {
 public:
  // flag: "--disk", for messages. known: the keys that are honoured.
  static Result<OptionList> parse(std::string_view flag, std::string_view text, const std::vector<std::string_view>& known);

  bool has(const std::string& key) const { return values_.contains(key); }
  std::string text(const std::string& key, std::string_view otherwise = "") const;
  Result<bool> flag(const std::string& key, bool otherwise) const;   // on|off|true|false
  Result<u64> number(const std::string& key, u64 otherwise) const;   // decimal, whole
  Result<u64> size(const std::string& key, u64 otherwise) const;     // with K, M, G, T suffix, 1024-based

 private:
  std::string flag_;
  std::map<std::string, std::string> values_;
};

Result<u64> parse_size(std::string_view what, std::string_view text);

// "off", "null", "tty", "file=PATH"; "pty" and "socket=" are refused by name.
Result<ConsoleConfig> parse_console(std::string_view flag, std::string_view text);
Result<DiskConfig> parse_disk(std::string_view text);
Result<VsockConfig> parse_vsock(std::string_view text);
Result<> parse_cpus(std::string_view text, MachineConfig& config);
Result<> parse_memory(std::string_view text, MachineConfig& config);
Result<> parse_rng(std::string_view text, MachineConfig& config);

}  // namespace smol::vmm

// Cloud Hypervisor's spelling of device options: comma separated `key=value`, read strictly: an
// unknown, doubled or not yet supported key is refused by name. A value may be a list, `key=[a,b]`,
// or carry commas in quotes, `key="a,b"`.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/rate_limiter.h"
#include "base/result.h"
#include "vmm/config.h"

namespace smol::vmm {

class OptionList {
 public:
  // flag: "--disk", for messages. known: the keys that are honoured.
  static Result<OptionList> parse(std::string_view flag, std::string_view text,
                                  const std::vector<std::string_view>& known);

  bool has(const std::string& key) const { return values_.contains(key); }
  std::string text(const std::string& key, std::string_view otherwise = "") const;
  Result<bool> flag(const std::string& key, bool otherwise) const;  // on|off|true|false
  Result<u64> number(const std::string& key, u64 otherwise) const;  // decimal, whole
  Result<u64> size(const std::string& key,
                   u64 otherwise) const;  // with K, M, G, T suffix, 1024-based
  // `[a,b]`, or a single value without brackets; empty when the key is not there. An empty item is
  // an error.
  Result<std::vector<std::string>> list(const std::string& key) const;

 private:
  std::string flag_;
  std::map<std::string, std::string> values_;
};

Result<u64> parse_size(std::string_view what, std::string_view text);

// Keys of a rate limit, to be added to a device's known ones, and what they say. Bandwidth in
// bytes, refill times in ms.
inline constexpr std::string_view kRateLimitKeys[] = {
    "bw_size",  "bw_one_time_burst",  "bw_refill_time",
    "ops_size", "ops_one_time_burst", "ops_refill_time"};
Result<base::RateLimiterConfig> parse_rate_limit(std::string_view flag, const OptionList& list);

// "off", "null", "tty", "file=PATH"; "pty" and "socket=" are refused by name.
Result<ConsoleConfig> parse_console(std::string_view flag, std::string_view text);
Result<DiskConfig> parse_disk(std::string_view text);
// `on`: the device alone; else a share.
Result<> parse_share(std::string_view text, MachineConfig& config);
Result<VsockConfig> parse_vsock(std::string_view text);
// net_options.cc
Result<NetConfig> parse_net(std::string_view text);
Result<MacAddress> parse_mac(std::string_view text);
Result<> parse_cpus(std::string_view text, MachineConfig& config);
Result<BalloonConfig> parse_balloon(std::string_view text);
Result<> parse_memory(std::string_view text, MachineConfig& config);
Result<sandbox::PathRule> parse_landlock_rule(std::string_view text);
Result<> parse_rng(std::string_view text, MachineConfig& config);

}  // namespace smol::vmm

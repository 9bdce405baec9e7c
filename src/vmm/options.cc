#include "vmm/options.h"

#include <algorithm>
#include <charconv>

namespace smol::vmm {
namespace {

Result<u64> parse_number(std::string_view what, std::string_view text) {
  u64 value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.empty())
    return fail("{}: '{}' is not a whole number", what, text);
  return value;
}

std::string join(const std::vector<std::string_view>& words) {
  std::string out;
  for (const std::string_view word : words) {
    if (!out.empty()) out += ", ";
    out += word;
  }
  return out;
}

// Where the first part of text ends: at a comma outside of brackets and quotes, or with the text.
Result<std::size_t> end_of_part(std::string_view flag, std::string_view text) {
  u32 depth = 0;
  bool quoted = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '"') quoted = !quoted;
    if (quoted) continue;
    if (c == '[') ++depth;
    if (c == ']' && depth-- == 0) return fail("{}: ']' without '[' in '{}'", flag, text);
    if (c == ',' && depth == 0) return i;
  }
  if (quoted) return fail("{}: a quote is not closed in '{}'", flag, text);
  if (depth != 0) return fail("{}: '[' without ']' in '{}'", flag, text);
  return text.size();
}

std::string without_quotes(std::string_view text) {
  if (text.size() >= 2 && text.front() == '"' && text.back() == '"' &&
      text.find('"', 1) == text.size() - 1)
    text = text.substr(1, text.size() - 2);
  return std::string(text);
}

}  // namespace

Result<OptionList> OptionList::parse(std::string_view flag, std::string_view text,
                                     const std::vector<std::string_view>& known) {
  OptionList list;
  list.flag_ = flag;
  while (!text.empty()) {
    TRY_ASSIGN(const std::size_t end, end_of_part(flag, text));
    const std::string_view part = text.substr(0, end);
    text = end == text.size() ? std::string_view() : text.substr(end + 1);
    const std::size_t equals = part.find('=');
    if (equals == std::string_view::npos) return fail("{}: '{}' is not key=value", flag, part);
    const std::string key(part.substr(0, equals));
    if (std::find(known.begin(), known.end(), key) == known.end())
      return fail("{}: '{}' is not supported ({} are)", flag, key, join(known));
    if (!list.values_.emplace(key, without_quotes(part.substr(equals + 1))).second)
      return fail("{}: '{}' is given twice", flag, key);
  }
  return list;
}

std::string OptionList::text(const std::string& key, std::string_view otherwise) const {
  const auto found = values_.find(key);
  return found == values_.end() ? std::string(otherwise) : found->second;
}

Result<bool> OptionList::flag(const std::string& key, bool otherwise) const {
  const std::string value = text(key, otherwise ? "on" : "off");
  if (value == "on" || value == "true") return true;
  if (value == "off" || value == "false") return false;
  return fail("{}: {}={} is neither on nor off", flag_, key, value);
}

Result<u64> OptionList::number(const std::string& key, u64 otherwise) const {
  return has(key) ? parse_number(fmt::format("{}: {}", flag_, key), text(key))
                  : Result<u64>(otherwise);
}

Result<u64> OptionList::size(const std::string& key, u64 otherwise) const {
  return has(key) ? parse_size(fmt::format("{}: {}", flag_, key), text(key))
                  : Result<u64>(otherwise);
}

Result<std::vector<std::string>> OptionList::list(const std::string& key) const {
  std::vector<std::string> items;
  if (!has(key)) return items;
  std::string_view rest = values_.at(key);
  const bool bracketed = rest.starts_with('[') && rest.ends_with(']');
  if (bracketed) rest = rest.substr(1, rest.size() - 2);
  if (bracketed && rest.empty()) return items;
  while (true) {
    TRY_ASSIGN(const std::size_t end, end_of_part(flag_, rest));
    if (end == 0) return fail("{}: {} has an empty item", flag_, key);
    items.push_back(without_quotes(rest.substr(0, end)));
    if (end == rest.size()) return items;
    rest = rest.substr(end + 1);
  }
}

Result<base::RateLimiterConfig> parse_rate_limit(std::string_view flag, const OptionList& list) {
  base::RateLimiterConfig config;
  const auto bucket = [&](std::string_view prefix, base::TokenBucketConfig& into) -> Result<> {
    TRY_ASSIGN(into.size, list.size(fmt::format("{}_size", prefix), 0));
    TRY_ASSIGN(into.one_time_burst, list.size(fmt::format("{}_one_time_burst", prefix), 0));
    TRY_ASSIGN(into.refill_ms, list.number(fmt::format("{}_refill_time", prefix), 0));
    return {};
  };
  TRY(bucket("bw", config.bandwidth));
  TRY(bucket("ops", config.operations));
  TRY(base::validate(config, flag));
  return config;
}

Result<u64> parse_size(std::string_view what, std::string_view text) {
  constexpr std::string_view kUnits = "KMGT";
  u32 shift = 0;
  std::string_view digits = text;
  if (!text.empty())
    if (const std::size_t unit = kUnits.find(text.back()); unit != std::string_view::npos) {
      shift = 10 * (static_cast<u32>(unit) + 1);
      digits.remove_suffix(1);
    }
  TRY_ASSIGN(const u64 value, parse_number(what, digits));
  if (shift != 0 && value > (~u64{0} >> shift)) return fail("{}: {} is too large", what, text);
  return value << shift;
}

Result<ConsoleConfig> parse_console(std::string_view flag, std::string_view text) {
  if (text == "off") return ConsoleConfig{.mode = ConsoleMode::kOff, .file = {}};
  if (text == "null") return ConsoleConfig{.mode = ConsoleMode::kNull, .file = {}};
  if (text == "tty") return ConsoleConfig{.mode = ConsoleMode::kTty, .file = {}};
  constexpr std::string_view kLimit = "tty,limit=";
  if (text.starts_with(kLimit)) {
    TRY_ASSIGN(const u64 limit,
               parse_size(fmt::format("{} limit", flag), text.substr(kLimit.size())));
    if (limit < 4096)
      return fail("{}: a limit of {} bytes is too small (4K at least)", flag, limit);
    return ConsoleConfig{.mode = ConsoleMode::kTty, .file = {}, .limit = limit};
  }
  constexpr std::string_view kFile = "file=";
  if (text.starts_with(kFile) && text.size() > kFile.size())
    return ConsoleConfig{.mode = ConsoleMode::kFile,
                         .file = std::string(text.substr(kFile.size()))};
  return fail("{}: '{}' is not supported (off, null, tty and file=PATH are)", flag, text);
}

Result<DiskConfig> parse_disk(std::string_view text) {
  std::vector<std::string_view> known{"path",          "readonly",   "image_type",
                                      "backing_files", "direct",     "serial",
                                      "num_queues",    "queue_size", "id"};
  known.insert(known.end(), std::begin(kRateLimitKeys), std::end(kRateLimitKeys));
  TRY_ASSIGN(const OptionList list, OptionList::parse("--disk", text, known));
  DiskConfig disk{.id = list.text("id"),
                  .path = list.text("path"),
                  .rate_limit = {},
                  .serial = list.text("serial")};
  TRY_ASSIGN(disk.read_only, list.flag("readonly", false));
  TRY_ASSIGN(disk.image_type, storage::parse_image_type(list.text("image_type", "auto")));
  TRY_ASSIGN(disk.backing_files, list.flag("backing_files", false));
  TRY_ASSIGN(disk.direct, list.flag("direct", false));
  TRY_ASSIGN(const u64 queues, list.number("num_queues", disk.num_queues));
  TRY_ASSIGN(const u64 size, list.number("queue_size", disk.queue_size));
  disk.num_queues = static_cast<u32>(std::min<u64>(queues, ~u32{0}));
  disk.queue_size = static_cast<u32>(std::min<u64>(size, ~u32{0}));
  TRY_ASSIGN(disk.rate_limit, parse_rate_limit("--disk", list));
  if (disk.path.empty()) return fail("--disk needs path=FILE");
  return disk;
}

Result<> parse_share(std::string_view text, MachineConfig& config) {
  config.share_device = true;
  if (text == "on") return {};
  TRY_ASSIGN(const OptionList list,
             OptionList::parse("--share", text, {"tag", "path", "readonly", "uid", "gid"}));
  ShareConfig share{
      .tag = list.text("tag"), .path = list.text("path"), .read_only = false, .uid = {}, .gid = {}};
  TRY_ASSIGN(share.read_only, list.flag("readonly", false));
  for (const auto& [key, id] : {std::pair{"uid", &share.uid}, std::pair{"gid", &share.gid}}) {
    if (!list.has(key)) continue;
    TRY_ASSIGN(const u64 number, list.number(key, 0));
    if (number >= 0xffffffff) return fail("--share: {}={} is no ID", key, number);
    *id = static_cast<u32>(number);
  }
  if (share.tag.empty() || share.path.empty())
    return fail("--share needs tag=NAME and path=DIRECTORY");
  config.shares.push_back(std::move(share));
  return {};
}

Result<VsockConfig> parse_vsock(std::string_view text) {
  TRY_ASSIGN(const OptionList list, OptionList::parse("--vsock", text, {"cid", "socket"}));
  VsockConfig vsock{.cid = 3, .socket = list.text("socket")};
  TRY_ASSIGN(vsock.cid, list.number("cid", 3));
  return vsock;
}

Result<> parse_cpus(std::string_view text, MachineConfig& config) {
  TRY_ASSIGN(const OptionList list, OptionList::parse("--cpus", text, {"boot", "max", "model"}));
  TRY_ASSIGN(const u64 boot, list.number("boot", 1));
  TRY_ASSIGN(const u64 max, list.number("max", boot));
  if (boot == 0 || boot > kMostCpus)
    return fail("--cpus: boot={}: a machine has 1 to {} CPUs", boot, kMostCpus);
  if (max != boot) return fail("--cpus: boot={} with max={}: CPUs cannot be added yet", boot, max);
  config.cpus = static_cast<u32>(boot);
  TRY_ASSIGN(config.model, hypervisor::parse_cpu_model(list.text("model", "host")));
  return {};
}

Result<> parse_memory(std::string_view text, MachineConfig& config) {
  TRY_ASSIGN(
      const OptionList list,
      OptionList::parse("--memory", text, {"size", "shared", "hugepages", "thp", "mergeable"}));
  TRY_ASSIGN(config.memory_size, list.size("size", config.memory_size));
  if (list.has("shared")) {
    TRY_ASSIGN(const bool shared, list.flag("shared", true));
    config.memory_shared = shared;
  }
  TRY_ASSIGN(config.memory_hugepages, list.flag("hugepages", false));
  TRY_ASSIGN(config.memory_mergeable, list.flag("mergeable", false));
  if (!list.has("thp")) return {};
  if (list.text("thp") == "madvise") {
    config.memory_thp = memory::HugePageAdvice::kHost;
    return {};
  }
  TRY_ASSIGN(const bool thp, list.flag("thp", true));
  config.memory_thp = thp ? memory::HugePageAdvice::kAsk : memory::HugePageAdvice::kRefuse;
  return {};
}

Result<BalloonConfig> parse_balloon(std::string_view text) {
  TRY_ASSIGN(
      const OptionList list,
      OptionList::parse("--balloon", text, {"size", "deflate_on_oom", "free_page_reporting"}));
  BalloonConfig balloon;
  TRY_ASSIGN(balloon.size, list.size("size", 0));
  TRY_ASSIGN(balloon.deflate_on_oom, list.flag("deflate_on_oom", true));
  TRY_ASSIGN(balloon.free_page_reporting, list.flag("free_page_reporting", true));
  return balloon;
}

Result<sandbox::PathRule> parse_landlock_rule(std::string_view text) {
  TRY_ASSIGN(const OptionList list,
             OptionList::parse("--landlock-rules", text, {"path", "access"}));
  const std::string path = list.text("path"), access = list.text("access", "r");
  if (path.empty()) return fail("--landlock-rules needs path=PATH");
  if (access != "r" && access != "rw")
    return fail("--landlock-rules: access={} is not supported (r and rw are)", access);
  return sandbox::PathRule{path, access == "rw" ? sandbox::Access::kShare : sandbox::Access::kRead};
}

Result<> parse_rng(std::string_view text, MachineConfig& config) {
  if (text == "off") {
    config.rng = false;
    return {};
  }
  TRY_ASSIGN(const OptionList list, OptionList::parse("--rng", text, {"src"}));
  config.rng = true;
  config.rng_source = list.text("src");
  return {};
}

}  // namespace smol::vmm

// Any bytes as the body of each call. What is taken must be taken again from its own JSON, and give
// the same.
#include <cstdint>
#include <cstdlib>

#include "api/json.h"

namespace {

using namespace smol::api;

void check(bool condition) {
  if (!condition) std::abort();
}

// Random bytes seldom are JSON: so the input also chooses among members and values, and puts a text
// together.
std::string compose(const std::uint8_t* data, std::size_t size) {
  static constexpr const char* kPieces[] = {
      "{",
      "}",
      "[",
      "]",
      ":",
      ",",
      "\"payload\"",
      "\"kernel\"",
      "\"disks\"",
      "\"path\"",
      "\"id\"",
      "\"size\"",
      "\"memory\"",
      "\"cpus\"",
      "\"boot_vcpus\"",
      "\"max_vcpus\"",
      "\"serial\"",
      "\"mode\"",
      "\"Tty\"",
      "null",
      "true",
      "false",
      "0",
      "-1",
      "1e9",
      "4294967296",
      "18446744073709551616",
      "\"\"",
      "\"\\u0000\"",
      "\"\xff\"",
      "{\"payload\":{}}",
      "{\"payload\":{\"kernel\":\"k\"},\"disks\":[{\"path\":\"p\"}]}"};
  std::string text;
  for (std::size_t i = 0; i < size; ++i) text += kPieces[data[i] % std::size(kPieces)];
  return text;
}

void feed(std::string_view text) {
  for (const char* const call :
       {"vm.create", "vm.resize", "vm.resize-disk", "vm.add-disk", "vm.add-net", "vm.add-vsock",
        "vm.add-share", "vm.remove-device", "vm.boot"}) {
    const auto parsed = parse_request("PUT", "/api/v1/" + std::string(call), text);
    if (!parsed) {
      check(!parsed.error().chain.empty());
      check(parse_error_chain(to_json(parsed.error())).size() == parsed.error().chain.size());
    } else if (const auto* create = std::get_if<VmCreate>(&*parsed)) {
      const std::string once = to_json(create->config);
      const auto again = parse_vm_config(once);
      check(again.has_value());
      check(to_json(*again) == once);
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  feed(text);
  feed(compose(data, std::min<std::size_t>(size, 64)));
  static_cast<void>(parse_request(text.substr(0, size / 2), text.substr(size / 2), {}));
  for (const auto& result : {parse_ping(text).has_value(), parse_vm_info(text).has_value(),
                             parse_counters(text).has_value()})
    static_cast<void>(result);
  return 0;
}

// CONFIG, SETUP and frame headers from a hostile host: smol-init must neither die nor read beyond
// them.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "guest/init/init.h"

namespace {

void try_setup(const std::uint8_t* data, std::size_t size) {
  std::vector<char> bytes(data, data + size);
  bytes.push_back('\0');
  if (size >= sizeof(smol_setup) && (data[0] & 1) != 0) {
    smol_setup head;
    std::memcpy(&head, data, sizeof head);
    head = {.kind = head.kind % 13, .flags = head.flags & 3};
    std::memcpy(bytes.data(), &head, sizeof head);
  }
  setup_item item;
  failure reason{};
  if (!parse_setup(bytes.data(), size, &item, &reason)) {
    if (reason.text[0] == '\0') std::abort();
    return;
  }
  std::size_t total = sizeof(smol_setup) + item.tail_size;
  for (const char* text : item.strings) total += text != nullptr ? std::strlen(text) + 1 : 0;
  if (total != size) std::abort();
}

void try_texts(const std::uint8_t* data, std::size_t size) {
  std::vector<char> text(data, data + size);
  text.push_back('\0');
  unsigned char address[16];
  unsigned prefix = 0;
  const std::size_t family = parse_address(text.data(), std::strlen(text.data()), address, &prefix);
  if (family != 0 && prefix > family * 8) std::abort();
  smol_stats stats{};
  parse_meminfo(text.data(), &stats);
  parse_proc_stat(text.data(), 100, &stats);
  parse_loadavg(text.data(), &stats);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try_setup(data, size);
  try_texts(data, size);
  failure reason{};
  if (size >= sizeof(smol_frame_header)) {
    smol_frame_header header;
    std::memcpy(&header, data, sizeof header);
    check_header(&header, &reason);
  }
  std::vector<char> bytes(data, data + size);
  // Generated heads are rarely sound: mend what would end the reading early.
  if (size >= sizeof(smol_config_head) && (data[0] & 1) != 0) {
    smol_config_head head;
    std::memcpy(&head, bytes.data(), sizeof head);
    head = {.version = SMOL_PROTOCOL_VERSION,
            .flags = head.flags & 3,
            .argc = 1 + head.argc % 8,
            .envc = head.envc % 8,
            .timeout_ms = head.timeout_ms,
            .window = head.window};
    std::memcpy(bytes.data(), &head, sizeof head);
  }
  run_config config;
  if (parse_config(bytes.data(), bytes.size(), SPARE_ENVIRONMENT, &config, &reason)) {
    std::size_t total = std::strlen(config.directory) + std::strlen(config.user);
    for (char** text = config.arguments; *text != nullptr; ++text) total += std::strlen(*text);
    for (char** text = config.environment; *text != nullptr; ++text) total += std::strlen(*text);
    if (total > size) std::abort();
    user found;
    failure other{};
    find_user(config.user, &found, &other);
  } else if (reason.text[0] == '\0') {
    std::abort();
  }
  std::free(config.arguments);
  return 0;
}

// The configuration's reader: what it takes, it writes and takes again.
#include <cstdlib>
#include <string>

#include "image/container/config.h"

extern "C" int LLVMFuzzerTestOneInput(const smol::u8* data, std::size_t size) {
  using smol::image::PackedConfig;
  static constexpr std::string_view kPieces[] = {"\"version\":1",
                                                 "\"cpus\":",
                                                 "\"env\":[\"A=\"",
                                                 "\"ports\":[{\"guest\":",
                                                 "\"labels\":{",
                                                 "\"healthcheck\":{\"test\":[",
                                                 "\"extra\":{\"",
                                                 "\"user\":\"",
                                                 "]",
                                                 "}",
                                                 "{",
                                                 ",",
                                                 "\"",
                                                 "4096",
                                                 "-1",
                                                 "[[["};
  std::string text = "{\"version\":1,";
  if (size > 0 && data[0] % 8 == 0) text.clear();
  for (std::size_t i = 1; i < size; ++i) {
    if (data[i] < 64)
      text += kPieces[data[i] % std::size(kPieces)];
    else
      text += static_cast<char>(data[i]);
  }
  if (size > 0 && data[0] % 2 == 0) text += "}";
  const auto config = PackedConfig::parse(text);
  if (!config) return 0;
  const auto again = PackedConfig::parse(config->to_json());
  if (!again || again->to_json() != config->to_json()) std::abort();
  return 0;
}

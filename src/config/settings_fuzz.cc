// The settings' reader.
#include <cstdlib>

#include "config/settings.h"

extern "C" int LLVMFuzzerTestOneInput(const smol::u8* data, std::size_t size) {
  using namespace smol::config;
  static constexpr std::string_view kPieces[] = {
      "[pack]\n", "require-signed = true\n", "trusted-keys = [\"", "\"]\n", "[[pack]]", "pack."};
  std::string text;
  for (std::size_t i = 0; i < size; ++i)
    text += data[i] < 48 ? std::string(kPieces[data[i] % std::size(kPieces)])
                         : std::string(1, static_cast<char>(data[i]));
  const auto settings = parse_settings(text, "fuzz");
  if (settings && !parse_settings(to_toml(*settings), "again")) std::abort();
  return 0;
}

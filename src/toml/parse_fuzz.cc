// Any bytes as TOML.
#include "toml/parse.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size <= 4096)
    (void)smol::toml_text::parse({reinterpret_cast<const char*>(data), size}, "fuzz");
  return 0;
}

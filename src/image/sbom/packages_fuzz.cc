// Records of installed packages.
#include "image/sbom/packages.h"

extern "C" int LLVMFuzzerTestOneInput(const smol::u8* data, std::size_t size) {
  using namespace smol::image;
  static constexpr std::string_view kPieces[] = {
      "Package: a\n", "Version: 1\n", "\n", "Status: install ok installed\n",
      "P:x\n",        "V:1\n",        ": "};
  std::string text;
  for (std::size_t i = 0; i < size; ++i)
    text += data[i] < 64 ? std::string(kPieces[data[i] % std::size(kPieces)])
                         : std::string(1, static_cast<char>(data[i]));
  parse_dpkg(text, "d", "f");
  parse_apk(text, "d", "f");
  std::string info = "\xff Go buildinf:\x08\x02";
  info.resize(32);
  info.append(reinterpret_cast<const char*>(data), size);
  parse_go({reinterpret_cast<const smol::u8*>(info.data()), info.size()}, "f");
  return 0;
}

// Texts of keys and signatures.
#include <cstdlib>
#include <string>

#include "image/container/minisign.h"

extern "C" int LLVMFuzzerTestOneInput(const smol::u8* data, std::size_t size) {
  using namespace smol::image;
  static const SecretKey secret = SecretKey::generate();
  static const PublicKey key = secret.public_key();
  static const std::string texts[] = {key.to_file(), secret.sign({}, "c").to_file("u"),
                                      *secret.to_file(std::nullopt), ""};
  if (size < 2) return 0;
  std::string text = texts[data[0] % 4];
  const std::string_view rest(reinterpret_cast<const char*>(data + 1), size - 1);
  if (text.empty()) text = rest;
  for (std::size_t at = 0; at + 2 <= std::min<std::size_t>(rest.size(), 16) && !text.empty();
       at += 2)
    text[static_cast<smol::u8>(rest[at]) % text.size()] = rest[at + 1];
  if (const auto parsed = PublicKey::parse(text);
      parsed && PublicKey::parse(parsed->to_base64()) != *parsed)
    std::abort();
  if (const auto parsed = Signature::parse(text)) {
    const auto again = Signature::parse(parsed->to_file("u"));
    if (!again || again->signature != parsed->signature) std::abort();
    static_cast<void>(verify(*parsed, key, {}));
  }
  static_cast<void>(SecretKey::parse(text, std::nullopt));
  return 0;
}

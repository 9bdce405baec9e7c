// What minisign.cc and secret_key.cc share: lines, base64, and what is signed.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "image/container/minisign.h"

namespace smol::image {

inline constexpr std::string_view kUntrustedPrefix = "untrusted comment: ";

// Takes a line, without its end, from the front of text; nothing when text is empty.
std::optional<std::string_view> next_line(std::string_view& text);
// True if text is exactly the base64 of into.size() bytes.
bool decode_base64(std::string_view text, ByteSpan into);
std::string encode_base64(ConstByteSpan bytes);
// The bytes that Ed25519 signs.
std::vector<u8> signed_message(const Signature& signature, ConstByteSpan message);
std::vector<u8> global_message(const Signature& signature);

}  // namespace smol::image

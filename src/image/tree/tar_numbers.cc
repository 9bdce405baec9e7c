#include "image/tree/tar_numbers.h"

#include <sodium.h>

#include <charconv>

namespace smol::image {

Result<i64> tar_number(ConstByteSpan field, const char* what) {
  if (!field.empty() && (field[0] & 0x80) != 0) {
    // Big-endian; the first bit is the mark, the second one the sign.
    u128 value = (field[0] & 0x40) != 0 ? ~u128{0} : 0;
    value = (value << 6) | (field[0] & 0x3f);
    for (const u8 byte : field.subspan(1)) value = (value << 8) | byte;
    const i128 number = static_cast<i128>(value);
    if (field.size() > 12 || number != static_cast<i64>(number))
      return fail("its {} has too many digits", what);
    return static_cast<i64>(number);
  }
  u64 value = 0;
  std::size_t at = 0;
  while (at < field.size() && field[at] == ' ') ++at;
  for (; at < field.size() && field[at] >= '0' && field[at] <= '7'; ++at) {
    if (value >> 60 != 0) return fail("its {} has too many digits", what);
    value = value * 8 + (field[at] - '0');
  }
  if (at < field.size() && field[at] != ' ' && field[at] != 0)
    return fail("its {} is no number", what);
  return static_cast<i64>(value);
}

Result<u64> tar_unsigned(ConstByteSpan field, const char* what) {
  TRY_ASSIGN(const i64 value, tar_number(field, what));
  if (value < 0) return fail("its {} is negative", what);
  return static_cast<u64>(value);
}

std::string tar_text(ConstByteSpan field) {
  const char* const text = reinterpret_cast<const char*>(field.data());
  return std::string(text, ::strnlen(text, field.size()));
}

Result<u64> decimal(std::string_view text, const char* what) {
  u64 value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size())
    return fail("its {} is no number", what);
  return value;
}

Result<Timestamp> decimal_time(std::string_view text) {
  const bool negative = text.starts_with('-');
  if (negative) text.remove_prefix(1);
  const std::size_t dot = text.find('.');
  TRY_ASSIGN(const u64 whole, decimal(text.substr(0, dot), "time"));
  if (whole > (u64{1} << 55)) return fail("its time has too many digits");
  Timestamp time{static_cast<i64>(whole), 0};
  if (dot != text.npos) {
    u32 scale = 100'000'000;
    for (const char digit : text.substr(dot + 1)) {
      if (digit < '0' || digit > '9') return fail("its time is no number");
      time.nanoseconds += scale * static_cast<u32>(digit - '0');
      scale /= 10;
    }
  }
  if (negative) {
    time.seconds = -time.seconds - (time.nanoseconds != 0 ? 1 : 0);
    if (time.nanoseconds != 0) time.nanoseconds = 1'000'000'000 - time.nanoseconds;
  }
  return time;
}

Result<std::string> percent_decoded(std::string_view text) {
  std::string decoded;
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (text[at] != '%') {
      decoded += text[at];
      continue;
    }
    u8 value = 0;
    if (text.size() - at < 3) return fail("the name of an extended attribute is cut");
    const auto [end, error] =
        std::from_chars(text.data() + at + 1, text.data() + at + 3, value, 16);
    if (error != std::errc() || end != text.data() + at + 3)
      return fail("the name of an extended attribute is badly encoded");
    decoded += static_cast<char>(value);
    at += 2;
  }
  return decoded;
}

Result<std::string> base64_decoded(std::string_view text) {
  while (text.ends_with('=')) text.remove_suffix(1);
  std::string decoded(text.size() * 3 / 4 + 1, '\0');
  std::size_t size = 0;
  const char* end = nullptr;
  if (::sodium_base642bin(reinterpret_cast<u8*>(decoded.data()), decoded.size(), text.data(),
                          text.size(), nullptr, &size, &end,
                          sodium_base64_VARIANT_ORIGINAL_NO_PADDING) != 0 ||
      end != text.data() + text.size())
    return fail("the value of an extended attribute is badly encoded");
  decoded.resize(size);
  return decoded;
}

}  // namespace smol::image

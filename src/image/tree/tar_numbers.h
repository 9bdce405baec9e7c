// The numbers and texts of tar headers.
#pragma once

#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"
#include "image/tree/tree.h"

namespace smol::image {

// Octal digits with blanks around, or GNU's base 256 (first bit set; two's complement). Empty is 0.
Result<i64> tar_number(ConstByteSpan field, const char* what);
Result<u64> tar_unsigned(ConstByteSpan field, const char* what);
// Up to the first 0 byte.
std::string tar_text(ConstByteSpan field);
// Decimal digits, nothing else.
Result<u64> decimal(std::string_view text, const char* what);
// "1700000000.25", "-1.5".
Result<Timestamp> decimal_time(std::string_view text);
// LIBARCHIVE.xattr's: percent-encoded names, base64 values without line breaks (padding may miss).
Result<std::string> percent_decoded(std::string_view text);
Result<std::string> base64_decoded(std::string_view text);

}  // namespace smol::image

// What a user is shown of texts that others chose: guests, archives, servers, names of files. A
// terminal obeys control characters (ECMA-48), so none gets there but line ends and tabs.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace smol::base {

// C0 and C1 control characters and DEL as "\x1b", each byte of them; the rest as it is.
std::string printable(std::string_view text);

// "Error: outer: inner" on a line of standard error.
void print_error(const Error& error);
void print_error(std::string_view text);

}  // namespace smol::base

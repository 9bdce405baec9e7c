// Texts as JSON: all that a capsule writes of it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace capsule {

std::string quoted(std::string_view text);
std::string quoted_list(const std::vector<std::string>& texts);

}  // namespace capsule

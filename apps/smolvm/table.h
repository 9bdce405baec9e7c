// Tables on standard output: columns as wide as their widest entry, a bold head on terminals.
#pragma once

#include <string>
#include <vector>

namespace smolvm {

using Row = std::vector<std::string>;
void print_table(const std::vector<Row>& rows);

}  // namespace smolvm

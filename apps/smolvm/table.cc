#include "table.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

namespace smolvm {
namespace {

bool colours() { return ::isatty(STDOUT_FILENO) != 0 && std::getenv("NO_COLOR") == nullptr; }

}  // namespace

// The last column is not padded.
void print_table(const std::vector<Row>& rows) {
  std::vector<std::size_t> widths;
  for (const Row& row : rows)
    for (std::size_t i = 0; i < row.size(); ++i) {
      if (widths.size() <= i) widths.push_back(0);
      widths[i] = std::max(widths[i], row[i].size());
    }
  const bool coloured = colours();
  for (std::size_t r = 0; r < rows.size(); ++r) {
    std::string line;
    for (std::size_t i = 0; i < rows[r].size(); ++i) {
      std::string cell = rows[r][i];
      const std::size_t missing = i + 1 < rows[r].size() ? widths[i] - cell.size() + 2 : 0;
      if (coloured && r == 0) cell = "\033[1m" + cell + "\033[0m";
      if (coloured && r > 0 && i == 1 && cell == "running") cell = "\033[32m" + cell + "\033[0m";
      line += cell + std::string(missing, ' ');
    }
    fmt::print("{}\n", line);
  }
}

}  // namespace smolvm

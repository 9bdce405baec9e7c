#include "machines/health.h"

#include "guest/protocol/protocol.h"

namespace smol::machines {
namespace {

constexpr u64 kBeyond = 5'000'000'000;  // ns that the agent has for its word behind the timeout

}  // namespace

std::string ask_health(const std::string& socket, const RunConfig& command, u64 timeout_ns) {
  const auto end = AgentClient(socket, timeout_ns + kBeyond).run(command, timeout_ns);
  if (!end) return end.error().chain();
  if (end->kind == SMOL_EXIT_STATUS && end->value == 0) return "";
  if (end->kind == SMOL_EXIT_TIMEOUT) return "the health command ran out of time";
  return end->kind == SMOL_EXIT_STATUS
             ? fmt::format("the health command ended with status {}", end->value)
             : fmt::format("the health command failed ({})", end->text);
}

}  // namespace smol::machines

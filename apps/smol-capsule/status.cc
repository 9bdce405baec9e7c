// `./app status`: whether the capsule runs, on which ports of the host it is reached, and whether
// it is well. Nobody watches a capsule meanwhile (its monitor is confined and knows no programs),
// so the health command is asked here and now.
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "commands.h"
#include "instance.h"
#include "json.h"
#include "machine.h"
#include "machines/agent_client.h"
#include "machines/health.h"

namespace capsule {
namespace {

constexpr u64 kMillisecond = 1'000'000;        // ns
constexpr u64 kMostPause = 1'000;              // ms between two questions of one `status`
constexpr u64 kStatsPatience = 5'000'000'000;  // ns
constexpr std::size_t kMostPorts = 64 * kKiB;

struct Health {
  std::string state;    // "": no health command; "healthy", "starting", "unhealthy"
  std::string problem;  // what the command said last
};

// Unhealthy is what fails `retries` times in a row; a failure in the start period is none yet.
Health ask(const Instance& instance, const image::PackedConfig& config) {
  if (!config.healthcheck) return {};
  const image::PackedHealthcheck& check = *config.healthcheck;
  machines::RunConfig command = packed_surroundings(config);
  command.arguments = check.test;
  Health health;
  for (u32 tries = 0; tries < check.retries; ++tries) {
    if (tries != 0)
      ::usleep(static_cast<useconds_t>(std::min(check.interval_ms, kMostPause) * 1000));
    health.problem =
        machines::ask_health(instance.socket, command, check.timeout_ms * kMillisecond);
    if (health.problem.empty()) return {.state = "healthy", .problem = ""};
    const auto stats = machines::AgentClient(instance.socket, kStatsPatience).stats();
    if (stats && stats->uptime_ns < check.start_period_ms * kMillisecond)
      return {.state = "starting", .problem = health.problem};
    if (!find_running(instance).value_or(std::nullopt)) break;  // it ended meanwhile
  }
  health.state = "unhealthy";
  return health;
}

std::vector<std::string> published_ports(const Instance& instance) {
  std::vector<std::string> ports;
  if (instance.ports.empty()) return ports;
  const auto text = base::read_text_file(instance.ports);
  if (!text || text->size() > kMostPorts) return ports;
  for (std::size_t at = 0; at < text->size();) {
    const std::size_t end = std::min(text->find('\n', at), text->size());
    ports.push_back(text->substr(at, end - at));
    at = end + 1;
  }
  return ports;
}

void print_json(const Instance& instance, pid_t pid, const Health& health,
                const std::vector<std::string>& ports) {
  std::printf(
      "{\"name\":%s,\"state\":\"%s\",\"pid\":%d,\"health\":%s,\"health_problem\":%s,"
      "\"ports\":%s}\n",
      quoted(instance.name).c_str(), pid != 0 ? "running" : "stopped", pid,
      health.state.empty() ? "null" : quoted(health.state).c_str(), quoted(health.problem).c_str(),
      quoted_list(ports).c_str());
}

}  // namespace

Result<int> status(const Arguments& arguments, const Contents& contents) {
  const Instance instance =
      find_instance(arguments.name.empty() ? contents.config().name : arguments.name);
  TRY_ASSIGN(const auto running, find_running(instance));
  Health health;
  std::vector<std::string> ports;
  if (running) {
    health = ask(instance, contents.config());
    ports = published_ports(instance);
  }
  const char* const name = instance.name.c_str();
  if (arguments.json) {
    print_json(instance, running ? running->pid : 0, health, ports);
  } else if (running) {
    std::printf("Capsule '%s': running (PID: %d)%s%s%s%s\n", name, running->pid,
                health.state.empty() ? "" : ", ", health.state.c_str(),
                health.problem.empty() ? "" : ": ", health.problem.c_str());
    for (const std::string& port : ports) std::printf("  port %s\n", port.c_str());
  } else {
    std::printf("Capsule '%s': not running\n", name);
  }
  return running && health.state != "unhealthy" ? 0 : 1;
}

}  // namespace capsule

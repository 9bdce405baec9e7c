#include "machines/image_spec.h"

#include <signal.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <tuple>

#include "machines/smolfile_spec.h"

namespace smol::machines {
namespace {

constexpr int kMostSignal = 64;

std::optional<int> number_of(std::string_view text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0) return std::nullopt;
  return value;
}

void apply_healthcheck(const image::Healthcheck& check, Health& health) {
  if (!health.command.empty() || check.test.size() < 2) return;
  if (check.test[0] == "CMD-SHELL") {
    health.command = {"/bin/sh", "-c", check.test[1]};
  } else if (check.test[0] == "CMD") {
    health.command.assign(check.test.begin() + 1, check.test.end());
  } else {
    return;
  }
  health.interval_ns = check.interval_ns;
  health.timeout_ns = check.timeout_ns;
  health.start_ns = check.start_period_ns;
  health.retries = check.retries;
}

}  // namespace

std::optional<int> signal_number(std::string_view text) {
  const auto plain = number_of(text);
  if (plain) return *plain >= 1 && *plain <= kMostSignal ? plain : std::nullopt;
  if (text.starts_with("SIG")) text.remove_prefix(3);
  for (const auto& [name, base, sign] :
       {std::tuple<std::string_view, int, int>{"RTMIN", 34, 1}, {"RTMAX", 64, -1}}) {
    if (!text.starts_with(name)) continue;
    if (text == name) return base;
    const auto more = number_of(text.substr(name.size() + 1));
    if (text[name.size()] != (sign > 0 ? '+' : '-') || !more || *more > 30) return std::nullopt;
    return base + sign * *more;
  }
  for (int number = 1; number < 32; ++number)
    if (const char* const name = ::sigabbrev_np(number); name != nullptr && text == name)
      return number;
  return std::nullopt;
}

void apply_image(const image::ImageConfig& config, MachineSpec& spec) {
  std::vector<std::string> environment;
  for (const std::string& entry : config.env)
    // What the guest could not take is not worth an error: docker ignores it, too.
    if (entry.find('=') != std::string::npos && entry[0] != '=') environment.push_back(entry);
  merge_environment(environment, spec.environment);
  spec.environment = std::move(environment);
  if (spec.user.empty()) spec.user = config.user;
  if (spec.directory.empty() && config.working_dir.starts_with('/')) {
    spec.directory = config.working_dir;
    spec.folders.push_back(config.working_dir);
  }
  for (const std::string& volume : config.volumes)
    if (volume.starts_with('/')) spec.folders.push_back(volume);
  if (spec.stop_signal.empty()) spec.stop_signal = config.stop_signal;
  for (const std::string& port : config.exposed_ports)
    if (std::find(spec.exposed.begin(), spec.exposed.end(), port) == spec.exposed.end())
      spec.exposed.push_back(port);
  for (const auto& label : config.labels)
    if (std::none_of(spec.labels.begin(), spec.labels.end(),
                     [&](const auto& own) { return own.first == label.first; }))
      spec.labels.push_back(label);
  apply_healthcheck(config.healthcheck, spec.health);
}

Words program_words(const ProgramChoice& choice, const Words& entrypoint, const Words& command) {
  Words out = choice.entrypoint.value_or(entrypoint);
  const Words& rest = !choice.words.empty() ? choice.words
                      : choice.command      ? *choice.command
                      : choice.entrypoint   ? Words{}
                                            : command;
  out.insert(out.end(), rest.begin(), rest.end());
  return out;
}

}  // namespace smol::machines

// `./app info`: what is in this file, with every byte of it checked.
#include <cstdio>

#include "commands.h"
#include "json.h"

namespace capsule {
namespace {

std::string_view yes_no(bool value) { return value ? "true" : "false"; }

std::string joined(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& word : words) out += (out.empty() ? "" : " ") + word;
  return out;
}

// "8080:80/tcp" published, "80/tcp" only exposed.
std::vector<std::string> port_texts(const image::PackedConfig& config) {
  std::vector<std::string> out;
  for (const image::PackedPort& port : config.ports)
    out.push_back(port.host != 0 ? fmt::format("{}:{}/{}", port.host, port.guest, port.protocol)
                                 : fmt::format("{}/{}", port.guest, port.protocol));
  return out;
}

// What the program brings along besides its words.
std::string surroundings_json(const image::PackedConfig& config) {
  std::string labels;
  for (const auto& [key, value] : config.labels)
    labels += (labels.empty() ? "" : ",") + quoted(key) + ":" + quoted(value);
  std::string health = "null";
  if (const auto& check = config.healthcheck)
    health = fmt::format(
        "{{\"test\":{},\"interval_ms\":{},\"timeout_ms\":{},\"start_period_ms\":{},"
        "\"retries\":{}}}",
        quoted_list(check->test), check->interval_ms, check->timeout_ms, check->start_period_ms,
        check->retries);
  return fmt::format(
      "\"ports\":{},\"volumes\":{},\"stop_signal\":{},\"labels\":{{{}}},\"healthcheck\":{}",
      quoted_list(port_texts(config)), quoted_list(config.volumes), quoted(config.stop_signal),
      labels, health);
}

void print_surroundings(const image::PackedConfig& config) {
  const auto line = [](const char* what, const std::string& text) {
    if (!text.empty()) std::printf("  %s %s\n", what, text.c_str());
  };
  line("ports", joined(port_texts(config)));
  line("volumes", joined(config.volumes));
  line("stop signal", config.stop_signal);
  if (config.healthcheck) line("health command", joined(config.healthcheck->test));
  for (const auto& [key, value] : config.labels) line("label", key + "=" + value);
}

void print_json(const image::Container& container, const image::PackedConfig& config) {
  std::string sections;
  for (const image::Section& section : container.sections())
    sections += fmt::format(
        "{}{{\"name\":{},\"kind\":\"{}\",\"size\":{},\"offset\":{},\"stored\":{},\"digest\":\"{}\"}"
        "}",
        sections.empty() ? "" : ",", quoted(section.name), image::to_string(section.kind),
        section.size, container.base() + section.offset, section.stored_size,
        image::to_hex(section.digest));
  std::printf(
      "{\"name\":%s,\"image\":%s,\"entrypoint\":%s,\"cpus\":%u,\"memory_mib\":%llu,%s,"
      "\"signed\":%s,\"intact\":true,\"sections\":[%s]}\n",
      quoted(config.name).c_str(), quoted(config.image).c_str(),
      quoted(joined(config.entrypoint)).c_str(), config.cpus,
      static_cast<unsigned long long>(config.memory_mib), surroundings_json(config).c_str(),
      std::string(yes_no(container.signature().present)).c_str(), sections.c_str());
}

}  // namespace

Result<int> show_info(const Arguments& arguments, const Contents& contents) {
  const image::Container& container = contents.container();
  const image::PackedConfig& config = contents.config();
  TRY(container.verify_all());
  if (arguments.json) {
    print_json(container, config);
    return 0;
  }
  std::printf("%s: %s\n", config.name.c_str(),
              config.image.empty() ? "made from files" : config.image.c_str());
  std::printf("  runs %s\n", joined(config.entrypoint).c_str());
  std::printf("  CPUs: %u, Memory: %llu MiB\n", config.cpus,
              static_cast<unsigned long long>(config.memory_mib));
  print_surroundings(config);
  std::printf("  %s\n",
              container.signature().present
                  ? ("signed, key " + image::key_id_text(container.signature().key_id)).c_str()
                  : "not signed");
  for (const image::Section& section : container.sections())
    std::printf("  %-12s %10llu bytes%s  %s\n", section.name.c_str(),
                static_cast<unsigned long long>(section.size),
                section.compressed ? fmt::format(" ({} stored)", section.stored_size).c_str() : "",
                image::to_hex(section.digest).substr(0, 16).c_str());
  std::printf("  every byte agrees with its digest\n");
  return 0;
}

}  // namespace capsule

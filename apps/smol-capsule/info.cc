// `./app info`: what is in this file, with every byte of it checked.
#include <cstdio>

#include "commands.h"

namespace capsule {
namespace {

std::string_view yes_no(bool value) { return value ? "true" : "false"; }

std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (static_cast<unsigned char>(c) < 0x20) {
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(static_cast<unsigned char>(c)));
    } else {
      out += c;
    }
  }
  return out + '"';
}

std::string joined(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& word : words) out += (out.empty() ? "" : " ") + word;
  return out;
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
      "{\"name\":%s,\"image\":%s,\"entrypoint\":%s,\"cpus\":%u,\"memory_mib\":%llu,"
      "\"signed\":%s,\"intact\":true,\"sections\":[%s]}\n",
      quoted(config.name).c_str(), quoted(config.image).c_str(),
      quoted(joined(config.entrypoint)).c_str(), config.cpus,
      static_cast<unsigned long long>(config.memory_mib),
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

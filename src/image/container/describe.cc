#include "image/container/describe.h"

#include <nlohmann/json.hpp>

#include "image/container/config.h"

namespace smol::image {

namespace {

using nlohmann::ordered_json;

std::string index_digest(const Container& container) {
  const std::string& index = container.index_bytes();
  return "blake2b-256:" +
         to_hex(digest_of({reinterpret_cast<const u8*>(index.data()), index.size()}));
}

// The text of the configuration, checked; empty if there is none that can be read.
Result<std::string> config_text(const Container& container) {
  const Section* const section = container.find(SectionKind::kConfig);
  if (section == nullptr || section->encrypted) return std::string();
  TRY_ASSIGN(std::string text, container.read_section(*section, PackedConfig::kMaxText));
  TRY(PackedConfig::parse(text));
  return text;
}

std::string flags_of(const Section& section) {
  std::string flags;
  const auto add = [&](bool on, std::string_view word) {
    if (on) flags += fmt::format("{}{}", flags.empty() ? "" : ",", word);
  };
  add(section.compressed, "zstd");
  add(section.encrypted, "encrypted");
  add(section.sparse, "sparse");
  return flags.empty() ? "-" : flags;
}

}  // namespace

Result<std::string> describe(const Container& container) {
  TRY_ASSIGN(const std::string config, config_text(container));
  std::string out = fmt::format(
      "File:      {}\nKind:      {}\nVersion:   1\nCreated:   {} (seconds since 1970)\nIndex:     "
      "{}\n",
      container.name(),
      container.base() == 0 ? "machine file"
                            : fmt::format("capsule, container at {}", container.base()),
      container.created(), index_digest(container));
  const SignatureState& signature = container.signature();
  if (!signature.present)
    out += "Signature: none\n";
  else
    out += fmt::format(
        "Signature: key {}, {}\n           {}\n", key_id_text(signature.key_id),
        signature.trusted ? "trusted and right" : "not checked: the key is not known here",
        signature.trusted_comment);
  out += fmt::format("\n{:<16} {:<13} {:<16} {:>14} {:>14}  {}\n", "SECTION", "KIND", "FLAGS",
                     "STORED", "SIZE", "DIGEST");
  for (const Section& section : container.sections())
    out += fmt::format("{:<16} {:<13} {:<16} {:>14} {:>14}  {}\n", section.name,
                       to_string(section.kind), flags_of(section), section.stored_size,
                       section.size, to_hex(section.digest));
  if (!config.empty()) out += "\n" + config;
  return out;
}

Result<std::string> describe_json(const Container& container) {
  TRY_ASSIGN(const std::string config, config_text(container));
  ordered_json out{{"version", 1},
                   {"capsule", container.base() != 0},
                   {"base", container.base()},
                   {"size", container.size()},
                   {"created", container.created()},
                   {"index_digest", index_digest(container)}};
  const SignatureState& signature = container.signature();
  out["signature"] = nullptr;
  if (signature.present)
    out["signature"] = {{"key_id", key_id_text(signature.key_id)},
                        {"trusted", signature.trusted},
                        {"trusted_comment", signature.trusted_comment}};
  out["key"] = !container.has_encrypted()     ? "none"
               : container.needs_passphrase() ? "passphrase"
                                              : "file";
  out["sections"] = ordered_json::array();
  for (const Section& section : container.sections())
    out["sections"].push_back({{"name", section.name},
                               {"kind", to_string(section.kind)},
                               {"zstd", section.compressed},
                               {"encrypted", section.encrypted},
                               {"sparse", section.sparse},
                               {"offset", section.offset},
                               {"stored_size", section.stored_size},
                               {"data_size", section.data_size},
                               {"size", section.size},
                               {"digest", "blake2b-256:" + to_hex(section.digest)}});
  out["config"] = config.empty() ? ordered_json() : ordered_json::parse(config, nullptr, false);
  return out.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace smol::image

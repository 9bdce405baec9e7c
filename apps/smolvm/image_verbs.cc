// Verbs about what machines are made of: images, prune.
#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <set>

#include "images.h"
#include "machines/data_dir.h"
#include "options.h"
#include "table.h"

namespace smolvm {
namespace {

using namespace smol;
using machines::Record;
using machines::State;
using nlohmann::json;

std::string megabytes(u64 bytes) {
  return fmt::format("{:.1f} MB", static_cast<double>(bytes) / 1e6);
}

std::string date_of(i64 ms) {
  const time_t seconds = static_cast<time_t>(ms / 1000);
  tm parts{};
  ::gmtime_r(&seconds, &parts);
  char text[32];
  ::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

json image_json(const image::ImageStore& store, const image::ImageRecord& record) {
  json out = {{"name", record.reference},       {"source", "store"},
              {"platform", record.platform},    {"digest", record.manifest_digest},
              {"config", record.config_digest}, {"layers", record.diff_ids.size()},
              {"bytes", record.size},           {"pulled_at", date_of(record.pulled_ms)}};
  if (const auto image = image::load_image(store, record))
    out["ports"] = image->config.exposed_ports;
  return out;
}

struct Removal {
  bool dry = false;
  u64 bytes = 0;
  json removed = json::array();
  std::vector<std::string> lines;

  void add(const char* kind, const std::string& name, u64 size) {
    bytes += size;
    removed.push_back({{kind, name}, {"bytes", size}});
    lines.push_back(std::string_view(kind) == "path" ? name : fmt::format("{} {}", kind, name));
  }
};

Result<> prune_machines(machines::Machines& all, bool stopped_too, Removal& removal) {
  TRY_ASSIGN(const auto garbage, all.garbage());
  for (const auto& [path, size] : garbage) {
    if (!removal.dry) TRY(machines::remove_tree(path));
    removal.add("path", path, size);
  }
  if (!stopped_too) return {};
  TRY_ASSIGN(const auto records, all.list());
  for (const Record& record : records) {
    if (record.state != State::kStopped && record.state != State::kCreated) continue;
    const u64 size = machines::disk_usage(all.machine_folder(record.spec.name));
    if (!removal.dry) TRY(all.remove(record.spec.name, false));
    removal.add("machine", record.spec.name, size);
  }
  return {};
}

Result<> prune_images(machines::Machines& all, bool images_too, Removal& removal) {
  TRY_ASSIGN(const auto store, open_images());
  TRY_ASSIGN(const auto records, all.list());
  std::set<std::string> used;
  image::PruneOptions options{
      .all = images_too, .dry_run = removal.dry, .removable = {}, .roots_in_use = {}};
  for (const Record& record : records) {
    const bool goes = removal.dry && images_too &&
                      (record.state == State::kStopped || record.state == State::kCreated);
    if (goes) continue;  // a dry run has left it there
    options.roots_in_use.insert(record.spec.rootfs);
    used.insert(record.spec.image_digest);
  }
  options.removable = [&](const image::ImageRecord& image) {
    return !used.contains(image.manifest_digest);
  };
  TRY_ASSIGN(const auto pruned, store.prune(options));
  for (const std::string& image : pruned.images) removal.add("image", image, 0);
  u64 told = 0;
  for (const auto& [name, size] : pruned.sizes) {
    removal.add(name.starts_with('/') ? "path" : "blob", name, size);
    told += size;
  }
  removal.bytes += pruned.bytes - told;  // of downloads that were broken off
  return {};
}

}  // namespace

Result<int> run_machine_images(const Invocation& invocation) {
  TRY_ASSIGN(const auto store, open_images());
  TRY_ASSIGN(const auto records, store.list_images());
  if (invocation.has("json")) {
    json out = json::array({{{"name", "default"}, {"source", "embedded"}}});
    for (const auto& record : records) out.push_back(image_json(store, record));
    fmt::print("{}\n", out.dump(2, ' ', false, json::error_handler_t::replace));
    return 0;
  }
  std::vector<Row> rows = {{"NAME", "PLATFORM", "DIGEST", "SIZE", "PULLED"},
                           {"default", "linux/amd64", "embedded", "-", "-"}};
  for (const auto& record : records) {
    const std::string& digest = record.manifest_digest;
    rows.push_back({record.reference, record.platform, digest.substr(digest.find(':') + 1, 12),
                    megabytes(record.size), date_of(record.pulled_ms)});
  }
  print_table(rows);
  return 0;
}

Result<int> run_machine_prune(const Invocation& invocation) {
  Removal removal{.dry = invocation.has("dry-run"), .lines = {}};
  TRY_ASSIGN(auto all, machines::Machines::open());
  TRY(prune_machines(all, invocation.has("all"), removal));
  TRY(prune_images(all, invocation.has("all"), removal));
  if (invocation.has("json")) {
    fmt::print(
        "{}\n",
        json{{"dry_run", removal.dry}, {"removed", removal.removed}, {"bytes", removal.bytes}}.dump(
            2, ' ', false, json::error_handler_t::replace));
    return 0;
  }
  for (const std::string& line : removal.lines)
    fmt::print("{} {}\n", removal.dry ? "Would remove" : "Removed", line);
  fmt::print("{} {} MiB\n", removal.dry ? "Would free" : "Freed", removal.bytes / kMiB);
  return 0;
}

}  // namespace smolvm

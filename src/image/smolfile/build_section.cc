// [build]: where an image begins and the steps on top of it.
#include <algorithm>

#include "image/smolfile/sections.h"

namespace smol::image {
namespace {

std::string below(const std::string& folder, const std::string& path) {
  return path.empty() || path[0] == '/' ? path : folder + "/" + path;
}

// A path below the Smolfile's folder; ".." would make a build depend on where it lies.
bool inside(std::string_view path) {
  if (path.empty() || path[0] == '/') return false;
  while (!path.empty()) {
    const std::size_t slash = path.find('/');
    if (path.substr(0, slash) == "..") return false;
    path = slash == std::string_view::npos ? "" : path.substr(slash + 1);
  }
  return true;
}

Result<> read_copy(const TableReader& in, BuildStep& step) {
  step.kind = BuildStep::Kind::kCopy;
  TRY(in.texts("copy", step.sources));
  if (step.sources.size() < 2)
    return in.bad("copy", "'copy' is [\"FROM\", \"TO\"], with at least one FROM");
  step.target = std::move(step.sources.back());
  step.sources.pop_back();
  for (const std::string& source : step.sources)
    if (!inside(source))
      return in.bad("copy", "'copy': '{}' must be a path below the Smolfile's folder", source);
  if (step.target.empty()) return in.bad("copy", "'copy' has an empty target");
  TRY(in.texts("exclude", step.exclude));
  TRY(in.text("owner", step.owner));
  std::string mode;
  TRY(in.text("mode", mode));
  if (mode.empty()) return {};
  u32 bits = 0;
  for (const char c : mode) {
    if (c < '0' || c > '7' || bits > 07777)
      return in.bad("mode", "'mode' is '{}'; it is written in octal, as \"0644\"", mode);
    bits = bits * 8 + static_cast<u32>(c - '0');
  }
  if (bits > 07777) return in.bad("mode", "'mode' is '{}'; \"7777\" is the highest", mode);
  step.mode = bits;
  return {};
}

Result<BuildStep> read_step(const TableReader& in, bool net) {
  constexpr std::string_view kKinds[] = {"copy", "run", "env", "workdir", "user"};
  TRY(in.only({"copy", "run", "env", "workdir", "user", "exclude", "mode", "owner", "net"}));
  BuildStep step;
  step.place = in.place();
  const auto said = std::count_if(std::begin(kKinds), std::end(kKinds),
                                  [&](std::string_view kind) { return in.has(kind); });
  if (said != 1)
    return in.bad_at(step.place, "a step has exactly one of copy, run, env, workdir and user");
  for (const std::string_view key : {"exclude", "mode", "owner"})
    if (in.has(key) && !in.has("copy")) return in.bad(key, "'{}' belongs to copy", key);
  if (in.has("net") && !in.has("run")) return in.bad("net", "'net' belongs to run");
  if (in.has("copy")) {
    TRY(read_copy(in, step));
  } else if (in.has("run")) {
    step.kind = BuildStep::Kind::kRun;
    step.net = net;
    TRY(in.command("run", step.command));
    TRY(in.boolean("net", step.net));
  } else if (in.has("env")) {
    step.kind = BuildStep::Kind::kEnv;
    TRY(in.environment("env", step.env));
  } else if (in.has("workdir")) {
    step.kind = BuildStep::Kind::kWorkdir;
    TRY(in.text("workdir", step.text));
    if (step.text.empty() || step.text[0] != '/')
      return in.bad("workdir", "'workdir' is '{}'; it must be an absolute path", step.text);
  } else {
    step.kind = BuildStep::Kind::kUser;
    TRY(in.text("user", step.text));
  }
  return step;
}

Result<> read_base(const TableReader& in, const std::string& folder, BuildPlan& plan) {
  constexpr std::string_view kBases[] = {"base", "rootfs", "smolfile"};
  const auto said = std::count_if(std::begin(kBases), std::end(kBases),
                                  [&](std::string_view key) { return in.has(key); });
  if (said != 1)
    return in.bad_at(in.place(), "[build] needs exactly one of base, rootfs and smolfile");
  for (const std::string_view key : kBases)
    if (in.has(key)) {
      plan.place = in.place(key);
      std::string word;
      TRY(in.text(key, word));
      if (word.empty()) return in.bad(key, "'{}' is empty", in.full(key));
    }
  TRY(in.text("base", plan.base));
  plan.scratch = plan.base == "scratch";
  if (plan.scratch) plan.base.clear();
  if (plan.base.starts_with("./") || plan.base.starts_with("../"))
    plan.base = below(folder, plan.base);
  TRY(in.text("rootfs", plan.rootfs));
  plan.rootfs = below(folder, plan.rootfs);
  TRY(in.text("smolfile", plan.smolfile));
  plan.smolfile = below(folder, plan.smolfile);
  return {};
}

}  // namespace

Result<> read_build(const TableReader& top, Smolfile& file) {
  TRY_ASSIGN(const toml::table* const table, top.table("build"));
  if (table == nullptr) return {};
  const TableReader in(top.path(), "build", *table);
  TRY(in.only(
      {"base", "rootfs", "smolfile", "platform", "epoch", "cpus", "memory", "net", "step"}));
  BuildPlan plan;
  TRY(read_base(in, file.folder, plan));
  TRY(in.text("platform", plan.platform));
  TRY(in.number("epoch", 0, 0xffff'ffff, plan.epoch));
  TRY(in.number("cpus", 1, kMostCpus, plan.cpus));
  TRY(in.number("memory", 32, kMostMemoryMib, plan.memory_mib));
  bool net = false;
  TRY(in.boolean("net", net));
  TRY_ASSIGN(const toml::array* const steps, in.tables("step"));
  if (steps != nullptr)
    for (const toml::node& node : *steps) {
      TRY_ASSIGN(auto step, read_step(TableReader(in.path(), "build.step", *node.as_table()), net));
      plan.steps.push_back(std::move(step));
    }
  file.build = std::move(plan);
  return {};
}

}  // namespace smol::image

#include "image/smolfile/sections.h"

namespace smol::image {
namespace {

Result<> read_dev(const TableReader& in, Smolfile& file) {
  TRY(in.only({"env", "volumes", "init", "ports", "workdir"}));
  TRY(in.environment("env", file.dev.env));
  TRY(in.texts("volumes", file.dev.volumes));
  TRY(in.texts("init", file.dev.init));
  TRY(in.texts("ports", file.dev.ports));
  return in.text("workdir", file.dev.workdir);
}

Result<> read_artifact(const TableReader& in, Smolfile& file) {
  TRY(in.only({"cpus", "memory", "entrypoint", "cmd", "env", "oci_platform"}));
  TRY(in.number("cpus", 1, kMostCpus, file.artifact.cpus));
  TRY(in.number("memory", 1, kMostMemoryMib, file.artifact.memory_mib));
  TRY(in.texts("entrypoint", file.artifact.entrypoint));
  TRY(in.texts("cmd", file.artifact.cmd));
  TRY(in.environment("env", file.artifact.env));
  return in.text("oci_platform", file.artifact.platform);
}

Result<> read_network(const TableReader& in, Smolfile& file) {
  TRY(in.only({"allow_hosts", "allow_cidrs", "dns", "name", "add_hosts", "host_access"}));
  TRY(in.texts("allow_hosts", file.network.allow_hosts));
  TRY(in.texts("allow_cidrs", file.network.allow_cidrs));
  TRY(in.text("dns", file.network.dns));
  TRY(in.texts("add_hosts", file.network.add_hosts));
  TRY(in.boolean("host_access", file.network.host_access));
  return in.text("name", file.network.segment);
}

Result<> read_health(const TableReader& in, Smolfile& file) {
  TRY(in.only({"exec", "interval", "timeout", "retries", "startup_grace"}));
  TRY(in.command("exec", file.health.exec));
  TRY(in.duration("interval", file.health.interval_ns));
  TRY(in.duration("timeout", file.health.timeout_ns));
  TRY(in.duration("startup_grace", file.health.startup_grace_ns));
  TRY(in.number("retries", 1, 1000, file.health.retries));
  if (file.health.exec.empty()) return in.bad_at(in.place(), "[health] needs 'exec'");
  return {};
}

Result<> read_restart(const TableReader& in, Smolfile& file) {
  TRY(in.only({"policy", "max_retries", "max_backoff"}));
  TRY(in.text("policy", file.restart.policy));
  TRY(in.number("max_retries", 0, 1'000'000, file.restart.max_retries));
  TRY(in.duration("max_backoff", file.restart.max_backoff_ns));
  const std::string& policy = file.restart.policy;
  if (!policy.empty() && policy != "never" && policy != "on-failure" && policy != "always")
    return in.bad("policy", "'restart.policy' is '{}'; never, on-failure and always are known",
                  policy);
  return {};
}

Result<> read_auth(const TableReader& in, Smolfile& file) {
  TRY(in.only({"ssh_agent"}));
  return in.boolean("ssh_agent", file.ssh_agent);
}

Result<> read_service(const TableReader& in, Smolfile& file) {
  TRY(in.only({"listen", "protocol"}));
  TRY(in.number("listen", 1, 65535, file.service.listen));
  TRY(in.text("protocol", file.service.protocol));
  const std::string& protocol = file.service.protocol;
  if (!protocol.empty() && protocol != "tcp" && protocol != "udp" && protocol != "http")
    return in.bad("protocol", "'service.protocol' is '{}'; tcp, udp and http are known", protocol);
  return {};
}

Result<> read_secrets(const TableReader& in, Smolfile& file) {
  for (auto&& [key, node] : in.raw()) {
    TRY_ASSIGN(const toml::table* const table, in.table(key.str()));
    const TableReader entry(in.path(), in.full(key.str()), *table);
    TRY(entry.only({"from_env", "from_file"}));
    SmolfileSecret secret{.name = std::string(key.str()), .from_env = {}, .from_file = {}};
    TRY(entry.text("from_env", secret.from_env));
    TRY(entry.text("from_file", secret.from_file));
    if (secret.from_env.empty() == secret.from_file.empty())
      return in.bad(key.str(), "the secret '{}' needs one of from_env and from_file", secret.name);
    if (!secret.from_file.empty() && secret.from_file[0] != '/')
      secret.from_file = file.folder + "/" + secret.from_file;
    file.secrets.push_back(std::move(secret));
  }
  return {};
}

}  // namespace

Result<> read_sections(const TableReader& top, Smolfile& file) {
  struct Section {
    std::string_view name;
    Result<> (*read)(const TableReader&, Smolfile&);
  };
  constexpr Section kSections[] = {
      {"dev", read_dev},         {"artifact", read_artifact}, {"pack", read_artifact},
      {"network", read_network}, {"health", read_health},     {"restart", read_restart},
      {"auth", read_auth},       {"service", read_service},   {"secrets", read_secrets}};
  if (top.has("artifact") && top.has("pack"))
    return top.bad("pack", "[pack] is another name of [artifact]; one of them is allowed");
  for (const Section& section : kSections) {
    TRY_ASSIGN(const toml::table* const table, top.table(section.name));
    if (table == nullptr) continue;
    TRY(section.read(TableReader(top.path(), std::string(section.name), *table), file));
  }
  return {};
}

}  // namespace smol::image

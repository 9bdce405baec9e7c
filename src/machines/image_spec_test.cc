#include "machines/image_spec.h"

#include <gtest/gtest.h>

#include "machines/smolfile_spec.h"

namespace smol::machines {
namespace {

TEST(ProgramWords, AreThoseOfDocker) {
  const Words entry = {"/entry", "-x"}, command = {"serve"};
  EXPECT_EQ(program_words({}, entry, command), (Words{"/entry", "-x", "serve"}));
  EXPECT_EQ(program_words({.words = {"a", "b"}}, entry, command),
            (Words{"/entry", "-x", "a", "b"}));
  EXPECT_EQ(program_words({.entrypoint = Words{"/mine"}}, entry, command), Words{"/mine"});
  EXPECT_EQ(program_words({.entrypoint = Words{"/mine"}, .words = {"a"}}, entry, command),
            (Words{"/mine", "a"}));
  EXPECT_EQ(program_words({.entrypoint = Words{}}, entry, command), Words{});
  EXPECT_EQ(program_words({.command = Words{"c"}}, entry, command), (Words{"/entry", "-x", "c"}));
  EXPECT_EQ(program_words({.command = Words{"c"}, .words = {"w"}}, {}, command), Words{"w"});
}

TEST(ImageSpec, IsUnderWhatTheUserSaid) {
  image::ImageConfig config;
  config.env = {"PATH=/x", "A=image", "broken"};
  config.user = "web";
  config.working_dir = "/srv";
  config.stop_signal = "SIGQUIT";
  config.volumes = {"/data", "relative"};
  config.exposed_ports = {"80/tcp"};
  config.labels = {{"a", "1"}, {"b", "2"}};
  config.healthcheck = {.test = {"CMD-SHELL", "true"}, .interval_ns = 7, .retries = 2};
  MachineSpec spec;
  spec.environment = {"A=mine"};
  spec.labels = {{"a", "mine"}};
  apply_image(config, spec);
  EXPECT_EQ(spec.environment, (std::vector<std::string>{"PATH=/x", "A=mine"}));
  EXPECT_EQ(spec.user, "web");
  EXPECT_EQ(spec.directory, "/srv");
  EXPECT_EQ(spec.folders, (std::vector<std::string>{"/srv", "/data"}));
  EXPECT_EQ(spec.stop_signal, "SIGQUIT");
  EXPECT_EQ(spec.exposed, std::vector<std::string>{"80/tcp"});
  EXPECT_EQ(spec.labels, (Pairs{{"a", "mine"}, {"b", "2"}}));
  EXPECT_EQ(spec.health.command, (Words{"/bin/sh", "-c", "true"}));
  EXPECT_EQ(spec.health.interval_ns, 7u);
  MachineSpec other;
  other.directory = "/mine";
  other.user = "1";
  config.healthcheck.test = {"NONE"};
  apply_image(config, other);
  EXPECT_EQ(other.directory, "/mine");
  EXPECT_EQ(other.user, "1");
  EXPECT_TRUE(other.health.command.empty());
}

TEST(SignalNumber, ReadsNamesAndNumbers) {
  EXPECT_EQ(signal_number("SIGQUIT"), 3);
  EXPECT_EQ(signal_number("WINCH"), 28);
  EXPECT_EQ(signal_number("15"), 15);
  EXPECT_EQ(signal_number("SIGRTMIN+3"), 37);
  EXPECT_EQ(signal_number("RTMAX-1"), 63);
  for (const char* const text : {"", "0", "65", "SIG", "SIGNOPE", "RTMIN3", "RTMIN+99", "-1"})
    EXPECT_FALSE(signal_number(text)) << text;
}

TEST(SmolfileSpec, GivesAMachine) {
  const auto file = image::parse_smolfile(
      "env = ['A=1', 'B=2']\nports = ['8080', '81:82/udp']\nvolumes = ['tmp:/x:ro']\nmemory = 99\n"
      "[dev]\nenv = ['A=3']\ninit = ['true']\n[network]\nallow_hosts = ['h']\n"
      "[health]\nexec = ['/ok']\nretries = 2\n[secrets]\nK = { from_env = 'E' }\n",
      "F", "/");
  ASSERT_TRUE(file) << file.error().chain();
  MachineSpec spec;
  const auto applied = apply_smolfile(*file, spec);
  ASSERT_TRUE(applied) << applied.error().chain();
  EXPECT_EQ(spec.memory_mib, 99u);
  EXPECT_EQ(spec.environment, (std::vector<std::string>{"A=3", "B=2"}));
  ASSERT_EQ(spec.ports.size(), 2u);
  EXPECT_EQ(spec.ports[0].host, 8080);
  EXPECT_EQ(spec.ports[0].guest, 8080);
  EXPECT_TRUE(spec.ports[1].udp);
  EXPECT_TRUE(spec.network.enabled);
  ASSERT_EQ(spec.volumes.size(), 1u);
  EXPECT_EQ(spec.volumes[0].host, "/tmp");
  EXPECT_EQ(spec.health.command, std::vector<std::string>{"/ok"});
  EXPECT_EQ(spec.secret_env[0].second, "E");
  spec.name = "a";
  const auto back = spec_from_json(to_json(spec));
  ASSERT_TRUE(back);
  EXPECT_EQ(*back, spec);
}

TEST(SmolfileSpec, APackedMachineHasNothingOfThisHost) {
  const auto file = image::parse_smolfile(
      "env = ['A=1']\nmemory = 99\nvolumes = ['/missing/folder:/data']\nexpose = ['80']\n"
      "[dev]\nenv = ['A=2']\ninit = ['true']\nports = ['1']\n"
      "[artifact]\nmemory = 100\nenv = ['B=1']\n",
      "F", "/");
  ASSERT_TRUE(file) << file.error().chain();
  MachineSpec spec;
  const auto applied = apply_smolfile_packed(*file, spec);
  ASSERT_TRUE(applied) << applied.error().chain();
  EXPECT_EQ(spec.environment, (std::vector<std::string>{"A=1", "B=1"}));
  EXPECT_EQ(spec.memory_mib, 100u);
  EXPECT_TRUE(spec.volumes.empty() && spec.init.empty() && spec.ports.empty());
  EXPECT_EQ(spec.folders, std::vector<std::string>{"/data"});
  EXPECT_EQ(spec.exposed, std::vector<std::string>{"80"});
}

TEST(SmolfileSpec, ErrorsNameTheKey) {
  MachineSpec spec;
  const auto ports = image::parse_smolfile("\nports = ['x:1']\n", "F", "/");
  ASSERT_TRUE(ports);
  const auto bad = apply_smolfile(*ports, spec);
  ASSERT_FALSE(bad);
  EXPECT_TRUE(bad.error().chain().starts_with("F:2:1: ")) << bad.error().chain();
  const auto volumes = image::parse_smolfile("volumes = ['/missing/folder:/x']\n", "F", "/");
  ASSERT_TRUE(volumes);
  const auto missing = apply_smolfile(*volumes, spec);
  ASSERT_FALSE(missing);
  EXPECT_TRUE(missing.error().chain().starts_with("F:1:1: ")) << missing.error().chain();
}

}  // namespace
}  // namespace smol::machines

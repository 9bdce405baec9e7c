#include "image/smolfile/smolfile.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

namespace smol::image {
namespace {

Result<Smolfile> parse(std::string_view text) { return parse_smolfile(text, "Smolfile", "/src"); }

std::string error_of(std::string_view text) {
  const auto parsed = parse(text);
  return parsed ? "taken" : parsed.error().chain();
}

constexpr const char* kEverything = R"(
image = "python:3.12"
entrypoint = ["/entry"]
cmd = "serve"
env = ["A=1", "B=x=y"]
workdir = "/app"
user = "app"
cpus = 2
memory = 1024
net = true
gpu = false
storage = 20
overlay = 4
ports = ["8080:80"]
volumes = ["./src:/app", "/abs:/b:ro"]
init = ["apk add git"]
expose = ["80/tcp"]
stop_signal = "SIGINT"
labels = { tier = "web" }
[dev]
env = { DEBUG = "1" }
volumes = ["x:/x"]
init = ["true"]
ports = ["9:9"]
workdir = "/dev-app"
[artifact]
cpus = 1
memory = 128
entrypoint = ["/only"]
oci_platform = "linux/amd64"
[network]
allow_hosts = ["example.org"]
allow_cidrs = ["10.0.0.0/8"]
add_hosts = ["db:10.0.0.1"]
host_access = false
dns = "9.9.9.9"
name = "lab"
[health]
exec = "wget -q localhost"
interval = "10s"
timeout = "500ms"
retries = 5
startup_grace = "1m"
[restart]
policy = "on-failure"
max_retries = 3
max_backoff = "1h"
[auth]
ssh_agent = true
[service]
listen = 8080
protocol = "http"
[secrets]
KEY = { from_env = "HOST_KEY" }
CERT = { from_file = "cert.pem" }
)";

TEST(Smolfile, ReadsEveryKey) {
  const auto read = parse(kEverything);
  ASSERT_TRUE(read) << read.error().chain();
  EXPECT_EQ(read->image, "python:3.12");
  EXPECT_EQ(read->entrypoint, std::vector<std::string>{"/entry"});
  EXPECT_EQ(read->cmd, std::vector<std::string>{"serve"});
  EXPECT_EQ(read->env, (std::vector<std::string>{"A=1", "B=x=y"}));
  EXPECT_EQ(read->cpus, 2u);
  EXPECT_EQ(read->memory_mib, 1024u);
  EXPECT_EQ(read->net, true);
  EXPECT_EQ(read->volumes, (std::vector<std::string>{"/src/./src:/app", "/abs:/b:ro"}));
  EXPECT_EQ(read->dev.env, std::vector<std::string>{"DEBUG=1"});
  EXPECT_EQ(read->dev.volumes, std::vector<std::string>{"/src/x:/x"});
  EXPECT_EQ(read->artifact.memory_mib, 128u);
  EXPECT_EQ(read->artifact.entrypoint, std::vector<std::string>{"/only"});
  EXPECT_EQ(read->network.segment, "lab");
  EXPECT_EQ(read->network.add_hosts, std::vector<std::string>{"db:10.0.0.1"});
  EXPECT_EQ(read->network.host_access, false);
  EXPECT_EQ(read->health.exec, (std::vector<std::string>{"/bin/sh", "-c", "wget -q localhost"}));
  EXPECT_EQ(read->health.timeout_ns, 500'000'000u);
  EXPECT_EQ(read->health.startup_grace_ns, 60'000'000'000u);
  EXPECT_EQ(read->restart.policy, "on-failure");
  EXPECT_TRUE(read->ssh_agent);
  EXPECT_EQ(read->service.listen, 8080u);
  ASSERT_EQ(read->secrets.size(), 2u);
  EXPECT_EQ(read->secrets[0].from_file, "/src/cert.pem");
  EXPECT_EQ(read->labels[0].second, "web");
  EXPECT_FALSE(read->build);
  EXPECT_EQ(read->at("ports"), "Smolfile:14:1");
  EXPECT_EQ(read->at("dev.ports"), "Smolfile:24:1");
  EXPECT_EQ(read->at("build"), "Smolfile");
}

TEST(Smolfile, ReadsABuild) {
  const auto read = parse(R"(
[build]
base = "debian:12"
net = true
epoch = 1700000000
memory = 256
[[build.step]]
copy = ["a", "b/*.txt", "/to/"]
exclude = ["*.pyc"]
mode = "0640"
owner = "1:2"
[[build.step]]
run = "make"
[[build.step]]
run = ["/bin/true", "x"]
net = false
[[build.step]]
env = ["A=1"]
[[build.step]]
workdir = "/w"
[[build.step]]
user = "nobody"
)");
  ASSERT_TRUE(read) << read.error().chain();
  ASSERT_TRUE(read->build);
  const BuildPlan& plan = *read->build;
  EXPECT_EQ(plan.base, "debian:12");
  EXPECT_EQ(plan.epoch, 1700000000u);
  ASSERT_EQ(plan.steps.size(), 6u);
  EXPECT_EQ(plan.steps[0].sources, (std::vector<std::string>{"a", "b/*.txt"}));
  EXPECT_EQ(plan.steps[0].target, "/to/");
  EXPECT_EQ(plan.steps[0].mode, 0640u);
  EXPECT_TRUE(plan.steps[1].net);
  EXPECT_EQ(plan.steps[1].command, (std::vector<std::string>{"/bin/sh", "-c", "make"}));
  EXPECT_EQ(plan.steps[2].command, (std::vector<std::string>{"/bin/true", "x"}));
  EXPECT_FALSE(plan.steps[2].net);
  EXPECT_EQ(plan.steps[5].text, "nobody");
  EXPECT_EQ(plan.steps[1].place.line, 12u);
}

TEST(Smolfile, SaysWhereAndWhat) {
  EXPECT_EQ(error_of("image = \"a\"\n  cpu = 2\n"),
            "Smolfile:2:3: unknown key 'cpu'; did you mean 'cpus'?");
  EXPECT_EQ(error_of("zzzzzzzz = 2\n"), "Smolfile:1:1: unknown key 'zzzzzzzz'");
  EXPECT_EQ(error_of("[netwerk]\ndns = ''\n"),
            "Smolfile:1:2: unknown key 'netwerk'; did you mean 'network'?");
  EXPECT_EQ(error_of("[network]\nallow_host = []\n"),
            "Smolfile:2:1: unknown key 'network.allow_host'; did you mean 'allow_hosts'?");
  EXPECT_EQ(error_of("cpus = \"2\"\n"), "Smolfile:1:8: 'cpus' must be a whole number, not a text");
  EXPECT_EQ(error_of("cpus = 0\n"), "Smolfile:1:8: 'cpus' is 0; it must be from 1 to 32");
  EXPECT_EQ(error_of("cpus = -1\n"), "Smolfile:1:8: 'cpus' is -1; it must be from 1 to 32");
  EXPECT_EQ(error_of("env = [\"A=1\",\n \"B\"]\n"), "Smolfile:2:2: 'env': 'B' is not NAME=value");
  EXPECT_EQ(error_of("net = 1\n"), "Smolfile:1:7: 'net' must be true or false, not a whole number");
  EXPECT_EQ(error_of("gpu = true\n"), "Smolfile:1:1: 'gpu' is not supported yet");
  EXPECT_EQ(error_of("workdir = \"app\"\n"),
            "Smolfile:1:1: 'workdir' is 'app'; it must be an absolute path in the guest");
  EXPECT_EQ(
      error_of("[health]\nexec = 'x'\ninterval = \"10\"\n"),
      "Smolfile:3:12: 'health.interval' is '10'; a duration is written as 500ms, 30s, 2m or 1h");
  EXPECT_EQ(error_of("[secrets]\nA = {}\n"),
            "Smolfile:2:1: the secret 'A' needs one of from_env and from_file");
  // What the TOML reader itself finds has a place, too.
  EXPECT_TRUE(error_of("a = \nb = 1\n").starts_with("Smolfile:1:")) << error_of("a = \nb = 1\n");
  EXPECT_TRUE(error_of("cpus = 1\ncpus = 2\n").starts_with("Smolfile:2:"));
}

TEST(Smolfile, RefusesBadBuilds) {
  EXPECT_EQ(error_of("[build]\nnet = true\n"),
            "Smolfile:1:1: [build] needs exactly one of base, rootfs and smolfile");
  const std::string head = "[build]\nbase = 'scratch'\n[[build.step]]\n";
  EXPECT_EQ(error_of(head + "run = 'a'\ncopy = ['a', 'b']\n"),
            "Smolfile:3:1: a step has exactly one of copy, run, env, workdir and user");
  EXPECT_EQ(error_of(head + "copy = ['../a', '/b']\n"),
            "Smolfile:4:1: 'copy': '../a' must be a path below the Smolfile's folder");
  EXPECT_EQ(error_of(head + "copy = ['/etc/passwd', '/b']\n"),
            "Smolfile:4:1: 'copy': '/etc/passwd' must be a path below the Smolfile's folder");
  EXPECT_EQ(error_of(head + "copy = ['a']\n"),
            "Smolfile:4:1: 'copy' is [\"FROM\", \"TO\"], with at least one FROM");
  EXPECT_EQ(error_of(head + "run = ''\n"), "Smolfile:4:7: 'build.step.run' is an empty command");
  EXPECT_EQ(error_of(head + "run = 'x'\nmode = '1'\n"), "Smolfile:5:1: 'mode' belongs to copy");
  EXPECT_EQ(error_of(head + "copy = ['a', 'b']\nmode = '9'\n"),
            "Smolfile:5:1: 'mode' is '9'; it is written in octal, as \"0644\"");
  EXPECT_EQ(error_of("[build]\nbase = 'scratch'\nstep = 1\n"),
            "Smolfile:3:1: 'build.step' must be written as [[build.step]], not as a whole number");
}

class Chain : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/smolfile-test-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    folder_ = name;
  }
  void TearDown() override {
    for (const std::string& file : files_) ::unlink((folder_ + "/" + file).c_str());
    ::rmdir(folder_.c_str());
  }
  std::string write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ + "/" + name) << text;
    files_.push_back(name);
    return folder_ + "/" + name;
  }
  std::string folder_;
  std::vector<std::string> files_;
};

TEST_F(Chain, InnermostFirst) {
  write("Base", "[build]\nbase = 'scratch'\n");
  const std::string top = write("Smolfile", "[build]\nsmolfile = 'Base'\n");
  for (const std::string& path : {top, folder_}) {
    const auto chain = read_smolfile_chain(path);
    ASSERT_TRUE(chain) << chain.error().chain();
    ASSERT_EQ(chain->size(), 2u);
    EXPECT_TRUE((*chain)[0].build->scratch);
    EXPECT_EQ((*chain)[1].path, top);
  }
}

TEST_F(Chain, RefusesACircleAndWhatIsMissing) {
  const std::string a = write("A", "[build]\nsmolfile = 'B'\n");
  write("B", "\n[build]\nsmolfile = 'C'\n");
  write("C", "[build]\nsmolfile = './B'\n");
  const auto chain = read_smolfile_chain(a);
  ASSERT_FALSE(chain);
  EXPECT_NE(chain.error().chain().find("/C:2:1: the base leads back to itself: "),
            std::string::npos)
      << chain.error().chain();
  const std::string d = write("D", "[build]\nsmolfile = 'nowhere'\n");
  const auto missing = read_smolfile_chain(d);
  ASSERT_FALSE(missing);
  EXPECT_TRUE(missing.error().chain().starts_with(d + ":2:1: the base cannot be read"))
      << missing.error().chain();
  write("E", "cpus = 1\n");
  const std::string f = write("F", "[build]\nsmolfile = 'E'\n");
  const auto plain = read_smolfile_chain(f);
  ASSERT_FALSE(plain);
  EXPECT_NE(plain.error().chain().find("has no [build]"), std::string::npos);
}

TEST(NearestWord, FindsTypos) {
  EXPECT_EQ(nearest_word("entrypiont", {"entrypoint", "env"}), "entrypoint");
  EXPECT_EQ(nearest_word("volume", {"volumes", "net"}), "volumes");
  EXPECT_EQ(nearest_word("completely", {"net", "env"}), "");
}

}  // namespace
}  // namespace smol::image

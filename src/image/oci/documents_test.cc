// Texts of others, understood or refused: references, platforms, manifests, configurations,
// challenges, files with credentials, rules for registries.
#include "image/oci/documents.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>

#include "base/fd.h"
#include "image/oci/challenge.h"
#include "image/oci/credentials.h"
#include "image/oci/reference.h"
#include "image/oci/registries.h"
#include "image/oci/registry.h"
#include "image/store/sha256.h"

namespace smol::image {
namespace {

const std::string kDigest =
    "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

TEST(Reference, Canonical) {
  const std::pair<std::string, std::string> cases[] = {
      {"alpine", "docker.io/library/alpine:latest"},
      {"alpine:3.20", "docker.io/library/alpine:3.20"},
      {"user/app", "docker.io/user/app:latest"},
      {"docker.io/alpine", "docker.io/library/alpine:latest"},
      {"index.docker.io/a/b", "docker.io/a/b:latest"},
      {"localhost/x", "localhost/x:latest"},
      {"localhost:5000/x", "localhost:5000/x:latest"},
      {"localhost:5000/a/b/c__d:T-1.2", "localhost:5000/a/b/c__d:T-1.2"},
      {"ghcr.io/o/n@" + kDigest, "ghcr.io/o/n@" + kDigest},
      {"ghcr.io/o/n:1@" + kDigest, "ghcr.io/o/n:1@" + kDigest},
      {"[::1]:5000/x:1", "[::1]:5000/x:1"},
  };
  for (const auto& [text, canonical] : cases) {
    auto reference = parse_reference(text);
    ASSERT_TRUE(reference) << reference.error().chain();
    EXPECT_EQ(reference->canonical(), canonical);
  }
  EXPECT_EQ(parse_reference("ghcr.io/o/n:1@" + kDigest)->selector(), kDigest);
}

TEST(Reference, Refused) {
  const std::string cases[] = {"",     "UPPER",         "a//b",   "a/",    "/a",    "a:",
                               "a:-x", "a@sha256:12",   "a@",     "x y",   "a..b",  "-a",
                               "a-",   "localhost:x/y", "a/../b", "a:b:c", "a___b", "host.example/",
                               ":tag", "a/b:\n"};
  for (const std::string& text : cases) EXPECT_FALSE(parse_reference(text)) << text;
}

TEST(Platform, Parsed) {
  EXPECT_EQ(parse_platform("")->text(), "linux/amd64");
  EXPECT_EQ(parse_platform("linux/x86_64")->text(), "linux/amd64");
  EXPECT_EQ(parse_platform("aarch64")->text(), "linux/arm64");
  EXPECT_EQ(parse_platform("linux/arm/v7")->text(), "linux/arm/v7");
  for (const char* const bad : {"/", "linux/", "a/b/c/d", "Linux/amd64", "linux /x"})
    EXPECT_FALSE(parse_platform(bad)) << bad;
}

std::string descriptor(const std::string& more = "", const std::string& size = "3") {
  return R"({"mediaType":"m","digest":")" + kDigest + R"(","size":)" + size + more + "}";
}

TEST(Index, Chosen) {
  const std::string arm = R"(,"platform":{"os":"linux","architecture":"arm64","variant":"v8"})";
  const std::string unknown = R"(,"platform":{"os":"unknown","architecture":"unknown"})";
  auto index =
      parse_index(R"({"manifests":[)" + descriptor(unknown) + "," + descriptor(arm, "7") + "]}");
  ASSERT_TRUE(index) << index.error().chain();
  EXPECT_EQ(choose(*index, {"linux", "arm64", ""})->size, 7u);
  auto none = choose(*index, Platform());
  ASSERT_FALSE(none);
  EXPECT_NE(none.error().message().find("linux/arm64/v8"), std::string::npos);
  EXPECT_EQ(none.error().message().find("unknown"), std::string::npos);
}

TEST(Manifest, HostileOnesAreRefused) {
  EXPECT_TRUE(parse_manifest(R"({"config":)" + descriptor() + R"(,"layers":[]})"));
  const std::string cases[] = {
      "",
      "[]",
      "{}",
      R"({"config":{},"layers":[]})",
      R"({"config":)" + descriptor() + "}",
      R"({"config":)" + descriptor() + R"(,"layers":[3]})",
      R"({"config":)" + descriptor("", "-1") + R"(,"layers":[]})",
      R"({"config":)" + descriptor("", "1e30") + R"(,"layers":[]})",
      R"({"config":)" + descriptor("", "18446744073709551615") + R"(,"layers":[]})",
      R"({"config":{"digest":"sha256:../../../etc/passwd","size":1},"layers":[]})",
      R"({"config":{"digest":"sha512:00","size":1},"layers":[]})",
      std::string(1000, '[') + std::string(1000, ']'),
  };
  for (const std::string& text : cases) EXPECT_FALSE(parse_manifest(text)) << text;
  // Sizes that are too much only together.
  const std::string large = descriptor("", std::to_string(kMaxBlob / 2 + 1));
  EXPECT_FALSE(parse_manifest(R"({"config":)" + descriptor() + R"(,"layers":[)" + large + "," +
                              large + "]}"));
}

TEST(Document, KindByWhatItIs) {
  EXPECT_EQ(kind_of_document(R"({"manifests":[]})", "").value(), DocumentKind::kIndex);
  EXPECT_EQ(kind_of_document(R"({"config":{}})", "").value(), DocumentKind::kManifest);
  EXPECT_EQ(kind_of_document("{}", "application/vnd.oci.image.index.v1+json; charset=x").value(),
            DocumentKind::kIndex);
  auto old = kind_of_document(R"({"schemaVersion":1,"fsLayers":[]})", "");
  ASSERT_FALSE(old);
  EXPECT_NE(old.error().message().find("schema 1"), std::string::npos);
}

TEST(Config, AllThatAProgramNeeds) {
  auto config = parse_config(R"({"os":"linux","architecture":"amd64","config":{
    "Entrypoint":["/e"],"Cmd":["c"],"Env":["A=B"],"User":"web:www","WorkingDir":"/w","StopSignal":"SIGINT",
    "Volumes":{"/data":{}},"ExposedPorts":{"80/tcp":{}},"Labels":{"k":"v"},
    "Healthcheck":{"Test":["CMD","true"],"Interval":1000000000,"Retries":3}},
    "rootfs":{"type":"layers","diff_ids":[")" +
                             kDigest + R"("]}})");
  ASSERT_TRUE(config) << config.error().chain();
  EXPECT_EQ(config->entrypoint, std::vector<std::string>{"/e"});
  EXPECT_EQ(config->user, "web:www");
  EXPECT_TRUE(config->volumes.contains("/data"));
  EXPECT_EQ(config->exposed_ports, std::vector<std::string>{"80/tcp"});
  EXPECT_EQ(config->healthcheck.interval_ns, 1'000'000'000u);
  EXPECT_EQ(config->healthcheck.retries, 3u);
  EXPECT_EQ(config->diff_ids, std::vector{kDigest});
  EXPECT_TRUE(parse_config(R"({"config":null})"));
  EXPECT_FALSE(parse_config(R"({"config":{"Cmd":"text"}})"));
  EXPECT_FALSE(parse_config(R"({"config":{"Env":["A=\u0000B"]}})"));
  EXPECT_FALSE(parse_config(R"({"rootfs":{"diff_ids":["x"]}})"));
}

TEST(Challenge, OfRegistries) {
  const auto found = parse_challenges(
      R"(Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push", Basic realm="x\"y")");
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].scheme, "bearer");
  EXPECT_EQ(found[0].parameters.at("realm"), "https://auth.example/token");
  EXPECT_EQ(found[0].parameters.at("scope"), "repository:a/b:pull,push");
  EXPECT_EQ(found[1].scheme, "basic");
  EXPECT_EQ(found[1].parameters.at("realm"), "x\"y");
  EXPECT_TRUE(parse_challenges("").empty());
  EXPECT_TRUE(parse_challenges("\"").empty());
}

TEST(Errors, OfRegistriesAsSentences) {
  EXPECT_EQ(registry_errors(R"({"errors":[{"code":"DENIED","message":"no\u001b[31m entry"}]})"),
            "DENIED: no [31m entry");
  EXPECT_EQ(registry_errors("<html>"), "");
}

class Files : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = "/tmp/oci-test-XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { ASSERT_EQ(std::system(("rm -rf " + folder_).c_str()), 0); }
  std::string write(const std::string& name, const std::string& text, mode_t mode = 0600) {
    const std::string path = folder_ + "/" + name;
    auto fd = base::open_file(path, O_WRONLY | O_CREAT | O_TRUNC, mode);
    EXPECT_TRUE(fd);
    EXPECT_TRUE(
        base::write_all(fd->get(), {reinterpret_cast<const u8*>(text.data()), text.size()}, path));
    return path;
  }
  std::string folder_;
};

TEST_F(Files, CredentialsMostSpecificFirst) {
  const std::string podman = write("auth.json", R"({"auths":{
    "r.example/team":{"auth":"dGVhbTpvbmU="},"r.example":{"auth":"YWxsOnR3bw=="}}})");
  const std::string docker = write("config.json", R"({"auths":{
    "https://index.docker.io/v1/":{"auth":"aHViOnRocmVl"},"other.example":{"identitytoken":"tok"}}})");
  const std::vector<std::string> files = {folder_ + "/missing.json", podman, docker};
  auto found = find_credentials(files, "r.example", "team/app");
  ASSERT_TRUE(found && *found);
  EXPECT_EQ((*found)->user + ":" + (*found)->password, "team:one");
  EXPECT_EQ((*find_credentials(files, "r.example", "x").value()).user, "all");
  EXPECT_EQ((*find_credentials(files, "docker.io", "library/x").value()).password, "three");
  EXPECT_EQ((*find_credentials(files, "other.example", "x").value()).identity_token, "tok");
  EXPECT_FALSE(find_credentials(files, "third.example", "x").value());
  EXPECT_FALSE(find_credentials({write("bad.json", "{")}, "r.example", "x"));
}

TEST_F(Files, CredentialHelpers) {
  write("docker-credential-good",
        "#!/bin/sh\nread r\necho \"{\\\"Username\\\":\\\"u-$r\\\",\\\"Secret\\\":\\\"s\\\"}\"\n",
        0700);
  write("docker-credential-empty",
        "#!/bin/sh\necho 'credentials not found in native keychain'\nexit 1\n", 0700);
  write("docker-credential-broken", "#!/bin/sh\necho 'keyring is locked'\nexit 1\n", 0700);
  const std::string path = std::getenv("PATH");
  ASSERT_EQ(::setenv("PATH", (folder_ + ":" + path).c_str(), 1), 0);
  auto found = find_credentials({write("a.json", R"({"credHelpers":{"r.example":"good"}})")},
                                "r.example", "x");
  ASSERT_TRUE(found && *found) << (found ? "nothing" : found.error().chain());
  EXPECT_EQ((*found)->user, "u-r.example");
  found = find_credentials({write("b.json", R"({"credsStore":"empty"})")}, "r.example", "x");
  ASSERT_TRUE(found);
  EXPECT_FALSE(*found);
  found = find_credentials({write("c.json", R"({"credsStore":"broken"})")}, "r.example", "x");
  ASSERT_FALSE(found);
  EXPECT_NE(found.error().chain().find("keyring is locked"), std::string::npos);
  EXPECT_FALSE(
      find_credentials({write("d.json", R"({"credsStore":"missing-one"})")}, "r.example", "x"));
  ::setenv("PATH", path.c_str(), 1);
}

TEST(Registries, RulesAndEndpoints) {
  auto rules = parse_registries(R"(
[registry."docker.io"]
mirrors = ["mirror.example:5000", "https://cache.example/hub"]
[registry."lab.example:5000"]
insecure = true
[registry."mirror.example:5000"]
ca = "/ca.pem"
)",
                                "r.toml");
  ASSERT_TRUE(rules) << rules.error().chain();
  RegistryOptions options;
  options.registries = *rules;
  auto endpoints = endpoints_of(*parse_reference("alpine"), options);
  ASSERT_TRUE(endpoints);
  ASSERT_EQ(endpoints->size(), 3u);
  EXPECT_EQ((*endpoints)[0].base.authority(), "mirror.example:5000");
  EXPECT_EQ((*endpoints)[0].ca_file, "/ca.pem");
  EXPECT_EQ((*endpoints)[1].prefix, "/hub");
  EXPECT_EQ((*endpoints)[2].base.authority(), "registry-1.docker.io");
  EXPECT_FALSE((*endpoints)[2].may_be_plain);
  endpoints = endpoints_of(*parse_reference("lab.example:5000/x"), options);
  EXPECT_TRUE((*endpoints)[0].may_be_plain);
  EXPECT_FALSE((*endpoints)[0].verify);
  EXPECT_TRUE((*endpoints_of(*parse_reference("localhost:5000/x"), options))[0].may_be_plain);

  auto wrong = parse_registries("[registry.\"a.example\"]\nmirror = []\n", "r.toml");
  ASSERT_FALSE(wrong);
  EXPECT_NE(wrong.error().chain().find("r.toml:2:"), std::string::npos) << wrong.error().chain();
  EXPECT_FALSE(parse_registries("x = [", "r.toml"));
  EXPECT_FALSE(parse_registries("\n[{\"x\"}]", "r.toml"));
  EXPECT_FALSE(parse_registries("[", "r.toml"));
  EXPECT_FALSE(parse_registries("\xc3\xa9 = 1", "r.toml"));
  const std::string rule = "[registry.\"a.example\"]\nca = \"/";
  EXPECT_TRUE(parse_registries(rule + "\\u00e9\" # \xc3\xa9\n", "r.toml"));
  EXPECT_TRUE(parse_registries(rule + "\xc3\xa9\"\n", "r.toml"));
  EXPECT_TRUE(parse_registries(registries_example(), "r.toml")->empty());
}

}  // namespace
}  // namespace smol::image

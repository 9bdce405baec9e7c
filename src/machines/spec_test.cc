#include "machines/spec.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"

namespace smol::machines {
namespace {

TEST(Name, GoodAndBad) {
  for (const char* const name : {"a", "web", "web-1", "A.b_c", "0"})
    EXPECT_TRUE(validate_name(name)) << name;
  EXPECT_TRUE(validate_name(std::string(63, 'x')));
  for (const char* const name : {"", "a/b", "/", "..", ".a", "-a", "a b", "a\n", "\xc3\xa9", "a:b"})
    EXPECT_FALSE(validate_name(name)) << name;
  EXPECT_FALSE(validate_name(std::string(64, 'x')));
  EXPECT_FALSE(validate_name(std::string_view("a\0b", 3)));
}

TEST(Ports, AreReadStrictly) {
  const auto plain = parse_port("8080:80");
  ASSERT_TRUE(plain);
  EXPECT_EQ(*plain, (Port{"127.0.0.1", 8080, 80, false}));
  EXPECT_EQ(*parse_port("0.0.0.0:53:5353/udp"), (Port{"0.0.0.0", 53, 5353, true}));
  EXPECT_EQ(*parse_port("[::1]:1:2"), (Port{"::1", 1, 2, false}));
  for (const char* const text : {"", "80", ":80", "80:", "0:1", "1:65536", "a:b", "1:2/sctp",
                                 "x:1:2", "1:2:3:4:", "-1:2", "1 :2"})
    EXPECT_FALSE(parse_port(text)) << text;
  for (const char* const text : {"8080:80", "0.0.0.0:53:5353/udp", "[::1]:1:2"})
    EXPECT_EQ(to_text(*parse_port(text)), text);
}

TEST(Volumes, MustBeDirectoriesAndAbsoluteInTheGuest) {
  EXPECT_EQ(*parse_volume("/tmp:/x"), (Volume{"/tmp", "/x", false}));
  EXPECT_EQ(*parse_volume("/tmp/../tmp:/x/:ro"), (Volume{"/tmp", "/x", true}));
  for (const char* const text : {"", "/tmp", "/tmp:", "/tmp:x", "/tmp:/", ":/x", "/tmp:/x:rx",
                                 "/missing:/x", "/etc/passwd:/x"})
    EXPECT_FALSE(parse_volume(text)) << text;
}

TEST(Spec, DoubledThingsAreRefused) {
  MachineSpec spec;
  spec.name = "a";
  spec.network.enabled = true;
  spec.ports = {{"127.0.0.1", 80, 1, false}, {"127.0.0.1", 80, 2, true}};
  EXPECT_TRUE(validate(spec)) << "TCP and UDP have ports of their own";
  spec.ports[1].udp = false;
  EXPECT_FALSE(validate(spec));
  spec.ports[1].address = "0.0.0.0";
  EXPECT_FALSE(validate(spec));
  spec.ports.pop_back();
  spec.volumes = {{"/a", "/x", false}, {"/b", "/x", true}};
  EXPECT_FALSE(validate(spec));
}

TEST(Spec, PortsOfBothFamilies) {
  MachineSpec spec;
  spec.name = "a";
  spec.network.enabled = true;
  spec.ports = {{"0.0.0.0", 80, 1, true}, {"::", 80, 1, true}};
  EXPECT_TRUE(validate(spec));
  spec.ports.push_back({"::1", 80, 2, true});
  EXPECT_FALSE(validate(spec));
}

TEST(Spec, NetworkTextsAreRead) {
  MachineSpec spec;
  spec.name = "a";
  spec.network = {.enabled = true,
                  .segment = "lab",
                  .allow_cidr = {"10.0.0.0/8", "[fd00::/8]:443"},
                  .allow_host = {"example.org:443", "*.example.net"},
                  .dns = "[fd00::1]:5353",
                  .hosts = {"db:10.1.2.3", "six:[fd00::1]", "six:fd00::2", "Me:host-gateway"},
                  .host_access = false};
  const auto good = validate(spec);
  EXPECT_TRUE(good) << good.error().chain();
  const auto refusal = [&](auto change) {
    MachineSpec other = spec;
    change(other.network);
    const auto valid = validate(other);
    return valid ? std::string() : valid.error().chain();
  };
  EXPECT_NE(refusal([](Network& n) { n.allow_cidr = {"10.0.0.1/8"}; }).find("--allow-cidr: "),
            std::string::npos);
  EXPECT_NE(refusal([](Network& n) { n.allow_cidr = {"example.org"}; }).find("--allow-host"),
            std::string::npos);
  EXPECT_NE(refusal([](Network& n) { n.allow_host = {"a b"}; }).find("--allow-host: "),
            std::string::npos);
  EXPECT_NE(refusal([](Network& n) { n.dns = "dns.example"; }).find("--dns: "), std::string::npos);
  for (const char* const text : {"", "db", ":10.0.0.1", "db:", "db:nowhere", "*.db:10.0.0.1",
                                 "d b:10.0.0.1", "db:10.0.0.1:80"})
    EXPECT_NE(refusal([&](Network& n) { n.hosts = {text}; }).find("--add-host: "),
              std::string::npos)
        << text;
}

TEST(Spec, JsonOfAnotherShapeIsRefused) {
  MachineSpec spec;
  spec.name = "a";
  spec.network.hosts = {"db:10.1.2.3"};
  spec.network.host_access = false;
  const auto back = spec_from_json(to_json(spec));
  ASSERT_TRUE(back);
  EXPECT_EQ(*back, spec);
  for (const char* const text : {"", "[]", "{\"cpus\":-1}", "{\"cpus\":\"2\"}", "{\"unknown\":1}",
                                 "{\"ports\":[{\"host\":70000}]}"})
    EXPECT_FALSE(spec_from_json(text)) << text;
}

TEST(Spec, BytesThatAreNoTextAreKept) {
  MachineSpec spec;
  spec.name = "a";
  spec.volumes = {{"/caf\xe9", "/x", false}};
  spec.environment = {"A=\xff\xfe", "B=\xc3\xa9", "C=\xed\xa0\x80"};
  spec.command = {"printf", "\x80"};
  const auto back = spec_from_json(to_json(spec));
  ASSERT_TRUE(back) << back.error().chain();
  EXPECT_EQ(*back, spec);
  for (const char* const text : {R"({"user":{"bytes":[256]}})", R"({"user":{"bytes":["a"]}})",
                                 R"({"user":{"bytes":[65],"x":1}})", R"({"user":{}})"})
    EXPECT_FALSE(spec_from_json(text)) << text;
}

TEST(Durations, HaveUnits) {
  EXPECT_EQ(*parse_duration("--timeout", "500ms"), 500'000'000u);
  EXPECT_EQ(*parse_duration("--timeout", "2"), 2'000'000'000u);
  for (const char* const text : {"", "0s", "s", "-1s", "1d", "99999999999999999999h", "1.5s"})
    EXPECT_FALSE(parse_duration("--timeout", text)) << text;
}

TEST(HostPorts, AFreeOneIsFound) {
  for (const bool udp : {false, true}) {
    const auto port = free_port("127.0.0.1", udp);
    ASSERT_TRUE(port) << port.error().chain();
    EXPECT_NE(*port, 0);
  }
  EXPECT_FALSE(free_port("localhost", false));
}

TEST(HostPorts, TextsOfPorts) {
  EXPECT_EQ(publish_text({"127.0.0.1", 8080, 80, false}), "tcp:127.0.0.1:8080:80");
  EXPECT_EQ(publish_text({"::1", 53, 54, true}), "udp:[::1]:53:54");
  const auto exposed = parse_exposed("53/udp");
  ASSERT_TRUE(exposed);
  EXPECT_EQ(exposed->guest, 53);
  EXPECT_EQ(exposed->host, 0);
  EXPECT_TRUE(exposed->udp);
  EXPECT_EQ(parse_exposed("80")->guest, 80);
  for (const char* const text : {"", "0", "65536", "80/", "80/sctp", "x", "80-81", "-1"})
    EXPECT_FALSE(parse_exposed(text)) << text;
}

TEST(HostPorts, ATakenPortIsToldByNumber) {
  const base::UniqueFd fd(::socket(AF_INET, SOCK_STREAM, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  ASSERT_EQ(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(::listen(fd.get(), 1), 0);
  ASSERT_EQ(::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  const u16 taken = ntohs(address.sin_port);
  const auto checked = check_port({"127.0.0.1", taken, 80, false});
  ASSERT_FALSE(checked);
  EXPECT_NE(checked.error().chain().find(std::to_string(taken)), std::string::npos);
  EXPECT_TRUE(check_port({"127.0.0.1", taken, 80, true}));
}

}  // namespace
}  // namespace smol::machines

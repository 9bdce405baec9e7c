#include "api/json.h"

#include <gtest/gtest.h>
#include <unistd.h>

namespace smol::api {
namespace {

// The last sentence of a refusal, with its status in front.
std::string refusal(std::string_view method, std::string_view call, std::string_view body) {
  const auto parsed = parse_request(method, "/api/v1/" + std::string(call), body);
  if (parsed) return "taken";
  return fmt::format("{} {}", parsed.error().status(), parsed.error().chain.back());
}

template <class T>
T parse(std::string_view method, std::string_view call, std::string_view body) {
  auto parsed = parse_request(method, "/api/v1/" + std::string(call), body);
  EXPECT_TRUE(parsed) << parsed.error().text();
  if (!parsed) return T{};
  EXPECT_TRUE(std::holds_alternative<T>(*parsed)) << call;
  return std::holds_alternative<T>(*parsed) ? std::move(std::get<T>(*parsed)) : T{};
}

TEST(Requests, EveryCallIsItsType) {
  parse<VmmPing>("GET", "vmm.ping", "");
  parse<VmmShutdown>("PUT", "vmm.shutdown", "");
  parse<VmGetInfo>("GET", "vm.info", "");
  parse<VmGetCounters>("GET", "vm.counters", "");
  parse<VmDelete>("PUT", "vm.delete", "");
  parse<VmBoot>("PUT", "vm.boot", "{}");
  parse<VmPause>("PUT", "vm.pause", "null");
  parse<VmResume>("PUT", "vm.resume", "");
  parse<VmShutdown>("PUT", "vm.shutdown", "");
  parse<VmReboot>("PUT", "vm.reboot", "");
  parse<VmPowerButton>("PUT", "vm.power-button", "");
  parse<VmNmi>("PUT", "vm.nmi", "");
  for (const char* const call :
       {"vm.add-device", "vm.add-fs", "vm.add-pmem", "vm.add-vdpa", "vm.add-user-device",
        "vm.add-generic-vhost-user", "vm.resize-zone", "vm.snapshot", "vm.restore", "vm.coredump",
        "vm.receive-migration", "vm.send-migration"})
    EXPECT_EQ(parse<NotSupported>("PUT", call, "{\"any\":[]}").call, call);
}

TEST(Requests, Bodies) {
  const auto resize =
      parse<VmResize>("PUT", "vm.resize", R"({"desired_balloon":1048576,"desired_ram":null})");
  EXPECT_EQ(resize.desired_balloon, 1048576u);
  EXPECT_FALSE(resize.desired_ram || resize.desired_vcpus);
  const auto disk = parse<VmResizeDisk>("PUT", "vm.resize-disk",
                                        R"({"id":"_disk0","desired_size":18446744073709551615})");
  EXPECT_EQ(disk.id, "_disk0");
  EXPECT_EQ(disk.desired_size, ~u64{0});
  const auto add = parse<VmAddDisk>(
      "PUT", "vm.add-disk",
      R"({"path":"/a","readonly":true,"rate_limiter_config":{"ops":{"size":5,"refill_time":100}}})");
  EXPECT_EQ(add.disk.path, "/a");
  EXPECT_TRUE(add.disk.readonly);
  EXPECT_EQ(add.disk.rate_limiter_config->ops->size, 5u);
  EXPECT_FALSE(add.disk.rate_limiter_config->bandwidth);
  EXPECT_EQ(parse<VmAddVsock>("PUT", "vm.add-vsock", R"({"cid":4,"socket":"/s"})").vsock.cid, 4u);
  EXPECT_EQ(parse<VmAddShare>("PUT", "vm.add-share", R"({"tag":"t","path":"/p"})").share.tag, "t");
  EXPECT_EQ(parse<VmRemoveDevice>("PUT", "vm.remove-device", R"({"id":"t"})").id, "t");
}

TEST(Requests, DescriptorsGoWithTheNetworkDevice) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const base::UniqueFd other(ends[1]);
  std::vector<base::UniqueFd> fds;
  fds.emplace_back(ends[0]);
  auto parsed = parse_request("PUT", "/api/v1/vm.add-net", R"({"tap":"tap0"})", std::move(fds));
  ASSERT_TRUE(parsed) << parsed.error().text();
  ASSERT_EQ(std::get<VmAddNet>(*parsed).fds.size(), 1u);
  EXPECT_EQ(std::get<VmAddNet>(*parsed).fds[0].get(), ends[0]);
}

TEST(Requests, WrongPathsAndMethods) {
  EXPECT_EQ(refusal("GET", "vm.nothing", ""), "404 there is no /api/v1/vm.nothing");
  EXPECT_EQ(parse_request("GET", "/vmm.ping", "").error().status(), 404);
  EXPECT_EQ(parse_request("GET", "/\n\x80", "").error().chain.back(), "there is no /??");
  EXPECT_EQ(refusal("PUT", "vmm.ping", ""), "400 vmm.ping is asked with GET");
  EXPECT_EQ(refusal("POST", "vm.boot", ""), "400 vm.boot is asked with PUT");
  EXPECT_EQ(refusal("PUT", "vm.boot", "{\"x\":1}"), "400 vm.boot takes no body");
}

TEST(Strictness, EveryRefusalNamesTheMember) {
  const struct {
    const char *call, *body, *refusal;
  } kCases[] = {
      {"vm.create", "",
       "400 not JSON: at line 1, column 1: syntax error while parsing value - unexpected end of "
       "input; expected '[', '{', or a literal"},
      {"vm.create", "[]", "400 an object is needed, this is of type array"},
      {"vm.create", "{}", "400 the member \"payload\" is missing"},
      {"vm.create", R"({"payload":{"kernel":7}})",
       "400 payload.kernel: a string is needed, this is of type number"},
      {"vm.create", R"({"payload":{"kernel":"a\u0000b"}})",
       "400 payload.kernel: a NUL character is in it"},
      {"vm.create", R"({"payload":{},"disk":[]})", "400 disk: there is no such member"},
      {"vm.create", R"({"payload":{"kernal":""}})", "400 payload.kernal: there is no such member"},
      {"vm.create", R"({"payload":{},"payload":{}})", "400 the member \"payload\" is there twice"},
      {"vm.create", R"({"payload":{},"cpus":{"boot_vcpus":-1,"max_vcpus":1}})",
       "400 cpus.boot_vcpus: a whole number that is not negative is needed, this is of type "
       "number"},
      {"vm.create", R"({"payload":{},"cpus":{"boot_vcpus":1.5,"max_vcpus":1}})",
       "400 cpus.boot_vcpus: a whole number that is not negative is needed, this is of type "
       "number"},
      {"vm.create", R"({"payload":{},"cpus":{"boot_vcpus":4294967296,"max_vcpus":1}})",
       "400 cpus.boot_vcpus: 4294967296 is larger than 4294967295"},
      {"vm.create", R"({"payload":{},"disks":[{"path":"a"},{"readonly":true}]})",
       "400 disks[1]: the member \"path\" is missing"},
      {"vm.create", R"({"payload":{},"disks":[{"path":"a","iommu":true}]})",
       "400 disks[0].iommu: this is not supported by this monitor"},
      {"vm.create", R"({"payload":{},"serial":{"mode":"Pty"}})",
       "400 serial.mode: \"Pty\" is not supported (Off, Null, Tty, File are)"},
      {"vm.create", R"({"payload":{},"fs":[{"tag":"a","socket":"b"}]})",
       "400 fs: this is not supported by this monitor"},
      {"vm.create", R"({"payload":{"firmware":"x"}})",
       "400 payload.firmware: this is not supported by this monitor"},
      {"vm.create", R"({"payload":{}} x)",
       "400 not JSON: at line 1, column 16: syntax error while parsing value - invalid literal; "
       "last read: '\"payload\":{}} x'; expected end of input"},
      {"vm.resize", R"({"desired_ram":"1G"})",
       "400 desired_ram: a whole number that is not negative is needed, this is of type string"},
  };
  for (const auto& wrong : kCases)
    EXPECT_EQ(refusal("PUT", wrong.call, wrong.body), wrong.refusal) << wrong.body;
}

TEST(Strictness, SizeAndDepth) {
  EXPECT_EQ(refusal("PUT", "vm.resize", std::string(kMaxBody + 1, ' ')),
            "400 1048577 bytes of JSON are more than 1048576");
  const std::string deep = std::string(kMaxDepth, '[') + std::string(kMaxDepth, ']');
  EXPECT_EQ(refusal("PUT", "vm.resize", deep), "400 an object is needed, this is of type array");
  EXPECT_EQ(refusal("PUT", "vm.resize", "[" + deep + "]"),
            "400 JSON nested 33 deep, at most 32 is taken");
  EXPECT_EQ(refusal("PUT", "vm.resize", std::string(500000, '[')),
            "400 JSON nested 500000 deep, at most 32 is taken");
  // Brackets in strings do not nest.
  EXPECT_EQ(refusal("PUT", "vm.resize", "{\"" + std::string(100, '[') + "\":1}"),
            "400 " + std::string(64, '[') + ": there is no such member");
}

TEST(Strictness, NeutralValuesOfWhatIsNotThereAreTaken) {
  // What a client that serializes every member of Cloud Hypervisor's structures sends.
  const auto config = parse_vm_config(R"({
    "cpus":{"boot_vcpus":1,"max_vcpus":1,"topology":null,"kvm_hyperv":false,"max_phys_bits":46,"affinity":null,"features":{"amx":false}},
    "memory":{"size":536870912,"mergeable":false,"hotplug_method":"Acpi","hotplug_size":null,"shared":false,"hugepages":false,"zones":null},
    "payload":{"firmware":null,"kernel":"/k","cmdline":"console=ttyS0","initramfs":null},
    "rate_limit_groups":null,"disks":[{"path":"/d","iommu":false,"num_queues":1,"queue_size":128,"vhost_user":false,"pci_segment":0,"id":null}],
    "net":null,"rng":{"src":"/dev/urandom","iommu":false},"balloon":null,"fs":null,"pmem":[],
    "serial":{"file":null,"mode":"Tty","iommu":false},"console":{"mode":"Off"},"devices":null,"vsock":null,"iommu":false,
    "numa":null,"watchdog":false,"pvpanic":false,"landlock_enable":false,"platform":{"num_pci_segments":1,"tdx":false}})");
  ASSERT_TRUE(config) << config.error().text();
  EXPECT_EQ(config->memory->size, 512 * kMiB);
  EXPECT_EQ(config->payload.kernel, "/k");
  EXPECT_EQ(config->disks.at(0).num_queues, 1u);
  EXPECT_EQ(config->console->mode, ConsoleMode::kOff);
}

TEST(Answers, RoundTrip) {
  VmInfo info;
  info.config.cpus = CpusConfig{2, 2};
  info.config.payload.kernel = "/k";
  info.config.disks.push_back({.id = "_disk0",
                               .path = "/\xc3\xa4",
                               .readonly = true,
                               .direct = false,
                               .num_queues = 2,
                               .queue_size = {},
                               .image_type = "Raw",
                               .backing_files = false,
                               .serial = {},
                               .rate_limiter_config = {}});
  info.config.serial = ConsoleConfig{.mode = ConsoleMode::kFile, .file = "/log"};
  info.config.shares = {{"t", "/p", true, {}, 5}};
  info.state = VmState::kPaused;
  info.memory_actual_size = 1;
  info.device_tree["_disk0"] = {"_disk0", "virtio-blk"};
  const std::string text = to_json(Answer(std::move(info)));
  const auto back = parse_vm_info(text);
  ASSERT_TRUE(back) << back.error().chain();
  EXPECT_EQ(to_json(Answer(*back)), text);
  EXPECT_EQ(back->state, VmState::kPaused);
  EXPECT_EQ(back->config.disks.at(0).path, "/\xc3\xa4");
  EXPECT_EQ(back->device_tree.at("_disk0").kind, "virtio-blk");

  const auto ping = parse_ping(to_json(Answer(Ping{"v0.1", "0.1", 42, {"kvm"}})));
  ASSERT_TRUE(ping) << ping.error().chain();
  EXPECT_EQ(ping->pid, 42);
  const auto counters =
      parse_counters(to_json(Answer(Counters{{"_disk0", {{"read_bytes", ~u64{0}}}}})));
  ASSERT_TRUE(counters) << counters.error().chain();
  EXPECT_EQ(counters->at("_disk0").at("read_bytes"), ~u64{0});
  EXPECT_EQ(to_json(Answer(NoContent{})), "");
}

TEST(Answers, ErrorsAreArraysOfSentences) {
  const ApiError error =
      ApiError::from(ErrorKind::kInternal, Error("outer").because_of(Error("inner \xff")));
  EXPECT_EQ(error.text(), "outer: inner \xff");
  EXPECT_EQ(to_json(error), "[\"outer\",\"inner \xef\xbf\xbd\"]");
  EXPECT_EQ(parse_error_chain(R"(["a","b"])"), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(parse_error_chain("oh no"), (std::vector<std::string>{"oh no"}));
}

}  // namespace
}  // namespace smol::api

#include "vmm/api_config.h"

#include <gtest/gtest.h>

#include "api/json.h"

namespace smol::vmm {
namespace {

Result<MachineConfig> read(std::string_view json, const MachineConfig& base = {}) {
  auto config = api::parse_vm_config(json);
  EXPECT_TRUE(config) << config.error().text();
  return machine_config(*config, base);
}

std::string refusal(std::string_view json) {
  const auto config = read(json);
  return config ? "taken" : config.error().chain();
}

TEST(ApiConfig, DefaultsAreCloudHypervisors) {
  MachineConfig base;
  base.accel = Accel::kSoft;
  base.tables = Tables::kMpTable;
  base.stats_file = "/stats";
  base.disks.emplace_back().path = "/not-this-one";
  const auto config = read(R"({"payload":{"kernel":"/k"}})", base);
  ASSERT_TRUE(config) << config.error().chain();
  EXPECT_EQ(config->kernel, "/k");
  EXPECT_EQ(config->cpus, 1u);
  EXPECT_EQ(config->memory_size, 512 * kMiB);
  EXPECT_EQ(config->serial.mode, ConsoleMode::kNull);
  EXPECT_EQ(config->console.mode, ConsoleMode::kTty);
  EXPECT_TRUE(config->rng);
  EXPECT_TRUE(config->disks.empty());
  EXPECT_FALSE(config->share_device);
  // Of the process, not of the machine.
  EXPECT_EQ(config->accel, Accel::kSoft);
  EXPECT_EQ(config->tables, Tables::kMpTable);
  EXPECT_EQ(config->stats_file, "/stats");
}

TEST(ApiConfig, EveryMemberArrives) {
  const auto config = read(R"({
    "payload":{"kernel":"/k","initramfs":"/i","cmdline":"a b"},
    "cpus":{"boot_vcpus":4,"max_vcpus":4},"memory":{"size":67108864,"shared":true},
    "disks":[{"path":"/d,with=commas [and brackets]","readonly":true,"serial":"s","id":"d","num_queues":2,"queue_size":128,
              "image_type":"Qcow2","rate_limiter_config":{"bandwidth":{"size":1000,"one_time_burst":5,"refill_time":100}}}],
    "net":[{"mode":"user","mac":"52:54:00:00:00:01","mtu":9000,"publish":["8080:80"],"allow":[],
           "hosts":["db:10.0.0.1","six:[fd00::1]"],"host_access":false}],
    "rng":{"src":"/dev/hwrng"},"serial":{"mode":"File","file":"/log"},"console":{"mode":"Off"},
    "vsock":{"cid":9,"socket":"/v"},"shares":[{"tag":"t","path":"/p","read_only":true,"uid":5}],
    "platform":{"accel":"kvm","cpu_model":"x86-64-v2","tables":"mp","deterministic":false}})");
  ASSERT_TRUE(config) << config.error().chain();
  EXPECT_EQ(config->initramfs, "/i");
  EXPECT_EQ(config->cmdline, "a b");
  EXPECT_EQ(config->cpus, 4u);
  EXPECT_EQ(config->memory_size, 64 * kMiB);
  EXPECT_EQ(config->memory_shared, true);
  ASSERT_EQ(config->disks.size(), 1u);
  const DiskConfig& disk = config->disks[0];
  EXPECT_EQ(disk.path, "/d,with=commas [and brackets]");
  EXPECT_TRUE(disk.read_only);
  EXPECT_EQ(disk.id, "d");
  EXPECT_EQ(disk.num_queues, 2u);
  EXPECT_EQ(disk.queue_size, 128u);
  EXPECT_EQ(disk.image_type, storage::ImageType::kQcow2);
  EXPECT_EQ(disk.rate_limit.bandwidth.size, 1000u);
  EXPECT_EQ(disk.rate_limit.bandwidth.one_time_burst, 5u);
  EXPECT_EQ(disk.rate_limit.bandwidth.refill_ms, 100u);
  ASSERT_EQ(config->nets.size(), 1u);
  EXPECT_EQ(config->nets[0].mode, NetMode::kUser);
  EXPECT_EQ(config->nets[0].mtu, 9000);
  EXPECT_EQ(config->nets[0].publish, std::vector<std::string>{"8080:80"});
  EXPECT_TRUE(config->nets[0].restrict_egress);
  EXPECT_EQ(config->nets[0].hosts, (std::vector<std::string>{"db:10.0.0.1", "six:[fd00::1]"}));
  EXPECT_FALSE(config->nets[0].host_access);
  EXPECT_EQ(config->rng_source, "/dev/hwrng");
  EXPECT_EQ(config->serial.file, "/log");
  EXPECT_EQ(config->console.mode, ConsoleMode::kOff);
  EXPECT_EQ(config->vsock->cid, 9u);
  ASSERT_EQ(config->shares.size(), 1u);
  EXPECT_EQ(config->shares[0].uid, 5u);
  EXPECT_EQ(config->accel, Accel::kKvm);
  EXPECT_EQ(config->tables, Tables::kMpTable);
  EXPECT_FALSE(config->deterministic);
  // And back: what is shown makes the same machine.
  const std::string shown = api::to_json(api_config(*config));
  const auto again = read(shown, *config);
  ASSERT_TRUE(again) << again.error().chain();
  EXPECT_EQ(api::to_json(api_config(*again)), shown);
  EXPECT_EQ(again->disks[0].path, disk.path);
  EXPECT_EQ(again->nets[0].mac, config->nets[0].mac);
  EXPECT_TRUE(again->nets[0].restrict_egress);
}

TEST(ApiConfig, LimitsAreTheCommandLines) {
  EXPECT_EQ(refusal(R"({"payload":{}})").substr(0, 19), "no kernel was given");
  EXPECT_NE(refusal(R"({"payload":{"kernel":"k"},"cpus":{"boot_vcpus":1,"max_vcpus":2}})")
                .find("CPUs cannot be added"),
            std::string::npos);
  EXPECT_NE(refusal(R"({"payload":{"kernel":"k"},"cpus":{"boot_vcpus":33,"max_vcpus":33}})")
                .find("1 to 32"),
            std::string::npos);
  EXPECT_NE(refusal(R"({"payload":{"kernel":"k"},"disks":[{"path":"a\",readonly=\"on"}]})")
                .find("quotation mark"),
            std::string::npos);
  EXPECT_NE(refusal(R"({"payload":{"kernel":"k"},"net":[{"mtu":67}]})").find("mtu=67"),
            std::string::npos);
  EXPECT_NE(refusal(R"({"payload":{"kernel":"k"},"vsock":{"cid":2,"socket":"/s"}})").find("CID 2"),
            std::string::npos);
  EXPECT_NE(refusal(R"({"payload":{"kernel":"k"},"platform":{"accel":"magic"}})").find("magic"),
            std::string::npos);
  EXPECT_NE(refusal(R"({"payload":{"kernel":"k"},"disks":[{"path":"a","image_type":"Vhdx"}]})")
                .find("vhdx"),
            std::string::npos);
}

}  // namespace
}  // namespace smol::vmm

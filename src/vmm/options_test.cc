#include "vmm/options.h"

#include <gtest/gtest.h>

namespace smol::vmm {
namespace {

std::string error_of(std::string_view text) {
  const auto net = parse_net(text);
  return net ? "" : net.error().chain();
}

TEST(Options, ListsAndQuotes) {
  const auto list = OptionList::parse("--x", "a=[1,2,3],b=one,c=[],d=\"x,y\",e=[\"p,q\",r]",
                                      {"a", "b", "c", "d", "e"});
  ASSERT_TRUE(list) << list.error().chain();
  EXPECT_EQ(*list->list("a"), (std::vector<std::string>{"1", "2", "3"}));
  EXPECT_EQ(*list->list("b"), (std::vector<std::string>{"one"}));
  EXPECT_TRUE(list->list("c")->empty());
  EXPECT_EQ(list->text("d"), "x,y");
  EXPECT_EQ(*list->list("e"), (std::vector<std::string>{"p,q", "r"}));
  EXPECT_TRUE(list->list("z")->empty());
}

TEST(Options, BrokenLists) {
  for (const std::string_view text : {"a=[1,2", "a=1]", "a=\"1", "a=[1],a=2", "b=1", "a"})
    EXPECT_FALSE(OptionList::parse("--x", text, {"a"})) << text;
  const auto list = OptionList::parse("--x", "a=[1,,2]", {"a"});
  ASSERT_TRUE(list);
  EXPECT_FALSE(list->list("a"));
}

TEST(NetOptions, CloudHypervisorsSpelling) {
  const auto net = parse_net(
      "tap=tap7,mac=52:54:00:12:34:5f,ip=192.168.9.1,mask=255.255.255.0,mtu=9000,num_queues=4,"
      "queue_size=512");
  ASSERT_TRUE(net) << net.error().chain();
  EXPECT_EQ(net->mode, NetMode::kTap);
  EXPECT_EQ(net->tap, "tap7");
  EXPECT_EQ((*net->mac)[5], 0x5f);
  EXPECT_EQ(net->mtu, 9000);
  EXPECT_EQ(net->num_queues, 4u);
  EXPECT_EQ(net->queue_size, 512u);
  EXPECT_EQ(net->ip, "192.168.9.1");
  EXPECT_EQ(parse_net("fd=5,num_queues=4")->fds, std::vector<int>{5});
  EXPECT_EQ(parse_net("fd=[5,7],num_queues=4")->fds, (std::vector<int>{5, 7}));
}

TEST(NetOptions, UserAndSegment) {
  const auto user = parse_net(
      "mode=user,publish=[tcp:127.0.0.1:8080:80,udp:0.0.0.0:53:53],allow=[10.0.0.0/"
      "8,example.org:443],"
      "dns=1.1.1.1,egress_log=/l,bw_size=1M,bw_refill_time=100,hosts=[db:10.0.0.1,six:[fd00::1]],"
      "host_access=off");
  ASSERT_TRUE(user) << user.error().chain();
  EXPECT_EQ(user->publish.size(), 2u);
  EXPECT_EQ(user->allow[1], "example.org:443");
  EXPECT_TRUE(user->restrict_egress);
  EXPECT_EQ(user->hosts, (std::vector<std::string>{"db:10.0.0.1", "six:[fd00::1]"}));
  EXPECT_FALSE(user->host_access);
  EXPECT_TRUE(parse_net("mode=user")->host_access);
  EXPECT_EQ(user->rate_limit.bandwidth.size, kMiB);
  EXPECT_EQ(user->rate_limit.bandwidth.refill_ms, 100u);
  EXPECT_TRUE(parse_net("mode=user,allow=[]")->restrict_egress);
  EXPECT_FALSE(parse_net("mode=user")->restrict_egress);
  const auto segment = parse_net("mode=segment,segment=/s,name=web,ip=10.88.0.2");
  ASSERT_TRUE(segment) << segment.error().chain();
  EXPECT_EQ(segment->segment, "/s");
  EXPECT_EQ(segment->name, "web");
  EXPECT_EQ(segment->ip, "10.88.0.2");
}

TEST(NetOptions, Refusals) {
  EXPECT_NE(error_of("mode=bridge").find("user, tap and segment"), std::string::npos);
  EXPECT_NE(error_of("tap=a,publish=80:80").find("'tap' belongs to mode=tap"), std::string::npos);
  EXPECT_NE(error_of("mode=user,segment=/x").find("mode=segment"), std::string::npos);
  EXPECT_NE(error_of("mode=user,host_access=perhaps").find("host_access"), std::string::npos);
  EXPECT_NE(error_of("fd=[5,6]").find("2 descriptors for 1 queue pairs"), std::string::npos);
  EXPECT_NE(error_of("fd=2").find("fd=2 is not a descriptor"), std::string::npos);
  EXPECT_NE(error_of("fd=[5,x],num_queues=4").find("fd=x"), std::string::npos);
  EXPECT_NE(error_of("tap=a,hosts=[a:10.0.0.1]").find("'hosts' belongs to mode=user"),
            std::string::npos);
  EXPECT_NE(error_of("mode=user,ip=10.0.0.1").find("'ip'"), std::string::npos);
  EXPECT_NE(error_of("vhost_user=on").find("'vhost_user' is not supported"), std::string::npos);
  for (const std::string_view text : {"mac=52:54:00:12:34",
                                      "mac=52-54-00-12-34-56",
                                      "mac=53:54:00:12:34:56",
                                      "mac=00:00:00:00:00:00",
                                      "mac=+2:54:00:12:34:56",
                                      "mtu=67",
                                      "mtu=65521",
                                      "num_queues=3",
                                      "num_queues=0",
                                      "num_queues=66",
                                      "queue_size=100",
                                      "queue_size=2048",
                                      "fd=1",
                                      "fd=5,tap=a",
                                      "mask=255.0.0.0",
                                      "ip=1.2.3",
                                      "mode=segment",
                                      "mode=segment,segment=/s,name=a",
                                      "bw_size=5",
                                      "ip=1.2.3.4,mask=x"})
    EXPECT_FALSE(parse_net(text)) << text;
}

}  // namespace
}  // namespace smol::vmm

#include "machines/store.h"

#include <gtest/gtest.h>
#include <sqlite3.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <set>
#include <thread>

#include "machines/data_dir.h"

namespace smol::machines {
namespace {

class StoreTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/smol-store-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    folder_ = name;
  }
  void TearDown() override { EXPECT_TRUE(remove_tree(folder_)); }
  std::string path() const { return folder_ + "/machines.db"; }
  static Record record(const std::string& name) {
    Record out;
    out.spec.name = name;
    return out;
  }
  std::string folder_;
};

TEST_F(StoreTest, ARecordComesBackWhole) {
  Record in = record("web");
  in.spec.volumes = {{"/a b", "/c", true}};
  in.spec.ports = {{"::1", 8080, 80, true}};
  in.spec.environment = {"A=\"quoted\"\n\xc3\xa9"};
  in.spec.network = {true, "net", {"10.0.0.0/8"}, {"example.org"}, "1.1.1.1"};
  in.spec.labels = {{"k", "v"}};
  in.spec.ssh_agent = true;
  in.state = State::kRunning;
  in.monitor = own_identity();
  in.created_ms = 1234567890123;
  in.reason = "x";
  auto store = Store::open(path());
  ASSERT_TRUE(store) << store.error().chain();
  ASSERT_TRUE(store->add(in));
  const auto out = store->get("web");
  ASSERT_TRUE(out) << out.error().chain();
  EXPECT_EQ(out->spec, in.spec);
  EXPECT_EQ(out->state, State::kRunning);
  EXPECT_EQ(out->monitor.mark, in.monitor.mark);
  EXPECT_EQ(out->created_ms, in.created_ms);
  EXPECT_TRUE(alive(out->monitor));
}

TEST_F(StoreTest, NamesAreTakenOnceAndUnknownOnesAreErrors) {
  auto store = Store::open(path());
  ASSERT_TRUE(store->add(record("a")));
  EXPECT_FALSE(store->add(record("a")));
  EXPECT_FALSE(store->get("b"));
  EXPECT_NE(store->get("b").error().chain().find("'b'"), std::string::npos);
  EXPECT_TRUE(store->remove("a"));
  EXPECT_TRUE(store->list()->empty());
}

TEST_F(StoreTest, ARefusedChangeChangesNothing) {
  auto store = Store::open(path());
  ASSERT_TRUE(store->add(record("a")));
  EXPECT_FALSE(store->change("a", [](Record& r) -> Result<> {
    r.state = State::kRunning;
    return fail("no");
  }));
  EXPECT_EQ(store->get("a")->state, State::kCreated);
  EXPECT_TRUE(store->change("a", [](Record&) -> Result<> { return {}; }))
      << "the transaction was left open";
}

TEST_F(StoreTest, ADatabaseOfANewerVersionIsRefusedUntouched) {
  {
    ASSERT_TRUE(Store::open(path())->add(record("a")));
  }
  sqlite3* raw = nullptr;
  ASSERT_EQ(sqlite3_open(path().c_str(), &raw), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(raw, "PRAGMA user_version = 7", nullptr, nullptr, nullptr), SQLITE_OK);
  sqlite3_close(raw);
  const auto store = Store::open(path());
  ASSERT_FALSE(store);
  EXPECT_NE(store.error().chain().find("newer"), std::string::npos) << store.error().chain();
  EXPECT_NE(store.error().chain().find(path()), std::string::npos);
}

TEST_F(StoreTest, AFileThatIsNoDatabaseIsAnError) {
  FILE* const file = std::fopen(path().c_str(), "w");
  for (int i = 0; i < 1000; ++i) std::fputs("nonsense ", file);
  std::fclose(file);
  EXPECT_FALSE(Store::open(path()));
}

// Of many processes that want the same change each sees what the others did: no update is lost, and
// a state is taken once.
TEST_F(StoreTest, ProcessesChangeOneRecordTogether) {
  {
    ASSERT_TRUE(Store::open(path())->add(record("a")));
  }
  constexpr int kProcesses = 4, kRounds = 50;
  for (int p = 0; p < kProcesses; ++p) {
    if (::fork() != 0) continue;
    auto store = Store::open(path());
    bool good = store.has_value();
    for (int i = 0; i < kRounds && good; ++i)
      good = store
                 ->change("a",
                          [](Record& r) -> Result<> {
                            r.spec.cpus += 1;
                            return {};
                          })
                 .has_value();
    const auto taken = store->change("a", [](Record& r) -> Result<> {
      if (r.state == State::kStarting) return fail("taken");
      r.state = State::kStarting;
      return {};
    });
    ::_exit(!good ? 2 : taken ? 1 : 0);
  }
  int takers = 0;
  for (int p = 0; p < kProcesses; ++p) {
    int status = 0;
    ASSERT_GT(::wait(&status), 0);
    ASSERT_TRUE(WIFEXITED(status));
    ASSERT_NE(WEXITSTATUS(status), 2);
    takers += WEXITSTATUS(status);
  }
  EXPECT_EQ(takers, 1);
  EXPECT_EQ(Store::open(path())->get("a")->spec.cpus, 1u + kProcesses * kRounds);
}

TEST_F(StoreTest, ProcessesCreateTheDatabaseTogether) {
  constexpr int kProcesses = 4;
  for (int p = 0; p < kProcesses; ++p)
    if (::fork() == 0) {
      auto store = Store::open(path());
      ::_exit(store && store->add(record(fmt::format("m{}", p))) ? 0 : 1);
    }
  for (int p = 0; p < kProcesses; ++p) {
    int status = 0;
    ASSERT_GT(::wait(&status), 0);
    EXPECT_EQ(status, 0);
  }
  EXPECT_EQ(Store::open(path())->list()->size(), std::size_t{kProcesses});
}

TEST_F(StoreTest, AKilledWriterLeavesTheOldRecord) {
  {
    ASSERT_TRUE(Store::open(path())->add(record("a")));
  }
  const pid_t child = ::fork();
  if (child == 0) {
    auto store = Store::open(path());
    (void)store->change("a", [](Record& r) -> Result<> {
      r.state = State::kRunning;
      ::kill(::getpid(), SIGKILL);
      return {};
    });
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(Store::open(path())->get("a")->state, State::kCreated);
}

TEST_F(StoreTest, AddressesOfASegmentAreTakenOnce) {
  auto store = Store::open(path());
  Record a = record("a");
  a.spec.network = {
      .enabled = true, .segment = "net", .allow_cidr = {}, .allow_host = {}, .dns = ""};
  Record b = record("b"), c = record("c");
  b.spec.network = c.spec.network = a.spec.network;
  c.spec.network.segment = "other";
  for (const Record& each : {a, b, c}) ASSERT_TRUE(store->add(each));
  for (int i = 0; i < 2; ++i) {  // the second time it is the record's
    EXPECT_EQ(*store->take_address("a"), "10.88.0.2");
    EXPECT_EQ(*store->take_address("b"), "10.88.0.3");
    EXPECT_EQ(*store->take_address("c"), "10.88.0.2");
  }
  EXPECT_EQ(store->get("b")->address, "10.88.0.3");
  // A machine that comes from another segment brings its address only where nobody has it.
  ASSERT_TRUE(store->change("c", [](Record& fresh) -> Result<> {
    fresh.spec.network.segment = "net";
    return {};
  }));
  EXPECT_EQ(*store->take_address("c"), "10.88.0.4");
  EXPECT_FALSE(store->take_address("none"));
}

TEST_F(StoreTest, TwoStartsAtOnceDoNotGetOneAddress) {
  constexpr int kMachines = 4;
  {
    auto store = Store::open(path());
    for (int i = 0; i < kMachines; ++i) {
      Record each = record(fmt::format("m{}", i));
      each.spec.network.segment = "net";
      ASSERT_TRUE(store->add(each));
    }
  }
  std::vector<std::string> taken(kMachines);
  std::vector<std::thread> starts;
  for (int i = 0; i < kMachines; ++i)
    starts.emplace_back([&, i] {
      auto store = Store::open(path());
      auto address = store->take_address(fmt::format("m{}", i));
      EXPECT_TRUE(address) << address.error().chain();
      if (address) taken[static_cast<std::size_t>(i)] = *address;
    });
  for (std::thread& start : starts) start.join();
  EXPECT_EQ(std::set<std::string>(taken.begin(), taken.end()).size(), taken.size());
}

TEST(ProcessIdentityTest, AnEndedProcessIsNotTakenForAnother) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::pause();
    ::_exit(0);
  }
  const auto identity = identify(child);
  ASSERT_TRUE(identity);
  EXPECT_TRUE(alive(*identity));
  ProcessIdentity other = *identity;
  other.mark += "1";
  EXPECT_FALSE(alive(other));
  EXPECT_FALSE(open_process(other));
  ::kill(child, SIGKILL);
  siginfo_t info{};
  ::waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT);
  EXPECT_FALSE(alive(*identity)) << "a zombie has ended";
  ::waitpid(child, nullptr, 0);
  EXPECT_FALSE(alive(*identity));
}

}  // namespace
}  // namespace smol::machines

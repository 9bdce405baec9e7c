// A host that swaps files under the guest's requests: whatever wins, nothing outside of the share
// is read, made, changed or removed.
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <set>
#include <thread>

#include "share/test_folder.h"

namespace smol::share {
namespace {

using namespace testing;

class Races : public ServerTest {
 protected:
  static constexpr int kRounds = 1000;

  void SetUp() override {
    ServerTest::SetUp();
    fs::create_directories(root / "d/sub");
    put_file(root / "d/f", "inside");
    fs::create_directory(outside / "away");
    put_file(outside / "away/f", "SECRET");
    fs::create_directory(outside / "away/sub");
    put_file(root / "file", "inside");
  }
  // Exchanges a and b over and over while body runs.
  void while_swapping(const fs::path& a, const fs::path& b, const std::function<void()>& body) {
    std::atomic<bool> stop{false};
    std::thread swapper([&] {
      while (!stop.load(std::memory_order_relaxed)) {
        ::syscall(SYS_renameat2, AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE);
        ::usleep(20);  // renames without a pause keep the kernel from finding any name
      }
    });
    body();
    stop = true;
    swapper.join();
  }
  void nothing_happened_outside() {
    EXPECT_EQ(get_file(outside / "away/f"), "SECRET");
    std::set<std::string> names;
    for (const auto& entry : fs::directory_iterator(outside / "away"))
      names.insert(entry.path().filename());
    EXPECT_EQ(names, (std::set<std::string>{"f", "sub"}));
    EXPECT_EQ(fs::hard_link_count(outside / "away/f"), 1u);
    EXPECT_EQ(get_file(outside / "canary"), "alive");
  }
  // Whatever a read of fid gives, it is not from outside.
  void read_is_from_inside(u32 fid) {
    const Answer answer = client->read(fid, 0, 100);
    if (answer.error == 0) {
      EXPECT_NE(answer.fields.substr(4), "SECRET");
    }
  }
};

TEST_F(Races, ADirectoryBecomesALinkAway) {
  fs::create_symlink("../away", root / "link");
  while_swapping(root / "d", root / "link", [&] {
    int reached = 0;
    for (u32 i = 0; i < kRounds; ++i) {
      if (client->walk(kTop, 10, {"d", "f"}) == 0) {
        ++reached;
        if (client->lopen(10, i % 3) == 0) {
          read_is_from_inside(10);
          if (i % 3 != 0) client->write(10, 0, "inside");
        }
        client->clunk(10);
      }
      if (client->walk(kTop, 11, {"d"}) != 0) continue;
      client->mkdir(11, "made");
      client->symlink(11, "l", "x");
      client->mknod(11, "p", S_IFIFO | 0600);
      client->rename_at(11, "f", 11, "g");
      client->rename_at(11, "g", 11, "f");
      for (const char* name : {"l", "p"}) client->unlink_at(11, name);
      client->unlink_at(11, "made", AT_REMOVEDIR);
      if (client->lcreate(11, "new", 2 | 01000) == 0) client->write(11, 0, "x");
      client->clunk(11);
      if (client->walk(kTop, 12, {"d", "new"}) == 0) client->remove(12);
    }
    EXPECT_GT(reached, 0);
  });
  nothing_happened_outside();
}

TEST_F(Races, AFileBecomesALinkAway) {
  fs::create_symlink("../away/f", root / "link");
  while_swapping(root / "file", root / "link", [&] {
    for (u32 i = 0; i < kRounds; ++i) {
      if (client->walk(kTop, 10, {"file"}) == 0) {
        client->setattr(10, 1 | 8, 0600, 0, 0, 6);
        client->setattr(10, 0x10 | 0x20 | 0x80 | 0x100);
        client->setattr(10, 2 | 4, 0, 0, 0);
        if (client->lopen(10, 2) == 0) read_is_from_inside(10);
        client->link(kTop, 10, "hard");
        client->unlink_at(kTop, "hard");
        client->clunk(10);
      }
      client->walk(kTop, 11, {});
      if (client->lcreate(11, "file", 2 | 01000) == 0) client->write(11, 0, "inside");
      client->clunk(11);
    }
  });
  nothing_happened_outside();
  EXPECT_EQ(fs::status(outside / "away/f").permissions(), static_cast<fs::perms>(0666));
}

TEST_F(Races, AFileBecomesAFifo) {
  ASSERT_EQ(::mkfifo((root / "fifo").c_str(), 0666), 0);
  while_swapping(root / "file", root / "fifo", [&] {
    int opened = 0;
    for (u32 i = 0; i < kRounds; ++i) {
      if (client->walk(kTop, 10, {"file"}) == 0) {
        if (client->lopen(10, i % 3) == 0) ++opened;
        client->clunk(10);
      }
      client->walk(kTop, 11, {});
      client->lcreate(11, "file", i % 3);
      client->clunk(11);
    }
    EXPECT_GT(opened, 0);
  });  // comes to its end: nothing waited for the FIFO's other side
}

TEST_F(Races, ADirectoryMovesOutAndBack) {
  while_swapping(root / "d", outside / "away", [&] {
    for (u32 i = 0; i < kRounds; ++i) {
      if (client->walk(kTop, 10, {"d", "sub"}) != 0) continue;
      // Up from there is the share or nothing, never the folder around it.
      if (client->walk(10, 11, {"..", ".."}) == 0) {
        EXPECT_NE(client->walk(11, 12, {"canary"}), 0);
        client->clunk(12);
        client->clunk(11);
      }
      if (client->walk(10, 11, {"..", "..", "..", "away"}) == 0) ADD_FAILURE() << "got out";
      client->clunk(11);
      client->clunk(10);
    }
  });
}

TEST_F(Races, HardLinksAndRenamesOfTheGuestStayInside) {
  // The guest's own renames race with its walks: still nothing but the share.
  put_file(root / "a", "inside");
  for (u32 i = 0; i < 200; ++i) {
    EXPECT_EQ(client->walk(kTop, 10, {"a"}), 0);
    EXPECT_EQ(client->walk(kTop, 11, {"d"}), 0);
    EXPECT_EQ(client->link(11, 10, "../../canary2"), EINVAL);
    EXPECT_EQ(client->rename(10, 11, ".."), EINVAL);
    EXPECT_EQ(client->rename_at(kTop, "a", 11, "../x"), EINVAL);
    EXPECT_EQ(client->rename_at(kTop, "d/f", 11, "x"), EINVAL);
    EXPECT_EQ(client->rename(10, 11, "b"), 0);
    EXPECT_EQ(client->rename_at(11, "b", kTop, "a"), 0);
    client->clunk(10);
    client->clunk(11);
  }
  nothing_happened_outside();
}

TEST_F(Races, SharesGoWhileRequestsRun) {
  std::atomic<bool> stop{false};
  std::thread owner([&] {
    while (!stop) {
      ::usleep(20);
      (void)server->remove("s");
      (void)server->add({.tag = "s", .path = root.string()});
    }
  });
  for (u32 i = 0; i < kRounds; ++i) {
    if (client->walk(kRoot, 10, {"s", "d", "f"}) == 0) {
      if (client->lopen(10) == 0) read_is_from_inside(10);
      client->getattr(10);
      client->clunk(10);
    }
    if (client->walk(kRoot, 11, {"s"}) == 0) {
      client->mkdir(11, "x");
      client->unlink_at(11, "x", AT_REMOVEDIR);
      client->clunk(11);
    }
  }
  stop = true;
  owner.join();
}

}  // namespace
}  // namespace smol::share

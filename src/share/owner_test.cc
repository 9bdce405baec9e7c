// Whose files are: shown to the guest, and on the host.
#include "share/owner.h"

#include <sys/wait.h>
#include <unistd.h>

#include <functional>

#include "share/test_folder.h"

namespace smol::share {
namespace {

using namespace testing;

class Owners : public ServerTest {
 protected:
  struct stat on_host(const char* name) {
    struct stat status{};
    EXPECT_EQ(::lstat((root / name).c_str(), &status), 0) << name;
    return status;
  }
  Attributes in_guest(const std::string& name) {
    Attributes attributes{};
    EXPECT_EQ(client->getattr(walk({name}), &attributes), 0) << name;
    return attributes;
  }
  // Runs body in a child of another user; its failed expectations fail the test.
  void as_user(u32 id, const std::function<void()>& body) {
    const pid_t child = ::fork();
    if (child == 0) {
      if (::setresgid(id, id, id) != 0 || ::setresuid(id, id, id) != 0) ::_exit(2);
      body();
      ::_exit(HasFailure() ? 1 : 0);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_EQ(status, 0) << "in the child, see above";
  }
};

TEST_F(Owners, ANamedOwnerIsShownForAll) {
  open(false, 1234, 4321);
  EXPECT_EQ(client->mkdir(kTop, "d", 06777), 0);
  EXPECT_EQ(client->mknod(kTop, "f", S_IFREG | 06755), 0);
  for (const char* name : {"d", "f"}) {
    EXPECT_EQ(in_guest(name).uid, 1234u);
    EXPECT_EQ(in_guest(name).gid, 4321u);
    EXPECT_EQ(on_host(name).st_uid, ::geteuid());
  }
  EXPECT_EQ(on_host("f").st_mode & 07777, 0755u) << "no set-user-ID of the monitor's user";
  const u32 file = walk({"f"});
  EXPECT_EQ(client->setattr(file, 1, 04711), 0);
  EXPECT_EQ(on_host("f").st_mode & 07777, 0711u);
  EXPECT_EQ(client->setattr(file, 2 | 4, 0, 1234, 4321), 0) << "what is so already";
  EXPECT_EQ(client->setattr(file, 2, 0, 0, 0), EPERM);
  EXPECT_EQ(client->setattr(file, 4, 0, 0, 1), EPERM);
  EXPECT_EQ(on_host("f").st_uid, ::geteuid());
}

TEST_F(Owners, RootPassesOwnersThrough) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root";
  ASSERT_EQ(client->attach(50, "s", 1000), 0);
  EXPECT_EQ(client->mkdir(50, "d", 02775, 1001), 0);
  EXPECT_EQ(client->mknod(50, "p", S_IFIFO | 0600), 0);
  EXPECT_EQ(
      client->send(Message(Type::kSymlink).put(u32{50}).text("l").text("x").put(u32{1001})).error,
      0);
  ASSERT_EQ(client->walk(50, 51, {}), 0);
  EXPECT_EQ(client->lcreate(51, "f", 2, 04755, 1001), 0);
  for (const char* name : {"d", "l", "f"}) {
    EXPECT_EQ(on_host(name).st_uid, 1000u) << name;
    EXPECT_EQ(on_host(name).st_gid, 1001u) << name;
    EXPECT_EQ(in_guest(name).uid, 1000u) << name;
  }
  EXPECT_EQ(on_host("f").st_mode & 07777, 04755u);
  EXPECT_EQ(::geteuid(), 0u);
  put_file(root / "by_root", "");
  EXPECT_EQ(on_host("by_root").st_uid, 0u) << "the identity is back";
  ASSERT_EQ(client->attach(55, "s", kKeepOwner), 0);
  EXPECT_EQ(client->mkdir(55, "of_nobody_told", 0755, 0), 0);
  EXPECT_EQ(on_host("of_nobody_told").st_uid, 0u);
  // A directory that only another user may write to: the guest's kernel decides that, not the host.
  fs::permissions(root / "d", fs::perms::owner_all);
  ASSERT_EQ(client->attach(60, "s", 2000), 0);
  ASSERT_EQ(client->walk(60, 61, {"d"}), 0);
  EXPECT_EQ(client->mkdir(61, "sub", 0755, 2000), 0);
  EXPECT_EQ(client->setattr(walk({"f"}), 2 | 4, 0, 7, 8), 0);
  EXPECT_EQ(on_host("f").st_uid, 7u);
  EXPECT_EQ(on_host("f").st_gid, 8u);
}

TEST_F(Owners, AnUnprivilegedMonitorIsRootInTheGuest) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root";
  put_file(root / "of_root", "");
  put_file(root / "of_other", "");
  put_file(root / "mine", "");
  ASSERT_EQ(::chown((root / "of_other").c_str(), 2000, 2001), 0);
  ASSERT_EQ(::chown((root / "mine").c_str(), 1000, 1000), 0);
  ASSERT_EQ(::chmod(outside.c_str(), 0755), 0);
  ASSERT_EQ(::chmod(root.c_str(), 0777), 0);
  ASSERT_EQ(::chmod((root / "of_root").c_str(), 0644), 0);
  as_user(1000, [&] {
    open();
    EXPECT_EQ(in_guest("mine").uid, 0u);
    EXPECT_EQ(in_guest("mine").gid, 0u);
    EXPECT_EQ(in_guest("of_root").uid, kNobody);
    EXPECT_EQ(in_guest("of_other").uid, 2000u);
    EXPECT_EQ(in_guest("of_other").gid, 2001u);
    ASSERT_EQ(client->attach(50, "s", 5), 0);
    EXPECT_EQ(client->mkdir(50, "made", 0755, 6), 0);
    EXPECT_EQ(in_guest("made").uid, 0u);
    EXPECT_EQ(on_host("made").st_uid, 1000u);
    const u32 mine = walk({"mine"});
    EXPECT_EQ(client->setattr(mine, 2 | 4, 0, 0, 0), 0);
    EXPECT_EQ(client->setattr(mine, 2, 0, 77), EPERM);
    EXPECT_EQ(client->setattr(mine, 1, 06755), 0);
    EXPECT_EQ(on_host("mine").st_mode & 07777, 0755u);
    EXPECT_EQ(client->setattr(walk({"of_other"}), 1, 0777), EPERM);
    EXPECT_EQ(client->lopen(walk({"of_root"}), 2), EACCES);
    client.reset();
    server.reset();
  });
  open();
}

}  // namespace
}  // namespace smol::share

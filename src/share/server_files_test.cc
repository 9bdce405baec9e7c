// Files and names as a guest uses them: data, listings, links, renames, attributes, locks.
#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "share/test_folder.h"

namespace smol::share {
namespace {

using namespace testing;

using Files = ServerTest;
using Names = ServerTest;
using AttributesOf = ServerTest;

TEST_F(Files, ReadsAndWrites) {
  ASSERT_EQ(client->walk(kTop, 10, {}), 0);
  ASSERT_EQ(client->lcreate(10, "f", 2, 0640), 0);
  EXPECT_EQ(client->write(10, 0, "hello"), 0);
  EXPECT_EQ(client->write(10, u64{5} << 30, "far"), 0);
  EXPECT_EQ(content(10).substr(0, 5), "hello");
  EXPECT_EQ(client->read(10, u64{5} << 30, 10).fields.substr(4), "far");
  EXPECT_EQ(client->read(10, u64{6} << 30, 10).at<u32>(0), 0u);
  EXPECT_EQ(client->read(10, ~u64{0}, 10).error, EINVAL);
  EXPECT_EQ(client->write(10, ~u64{0}, "x"), EINVAL);
  EXPECT_EQ(client->send(Message(Type::kFsync).put(u32{10}).put(u32{0})).error, 0);
  EXPECT_EQ(client->send(Message(Type::kFsync).put(u32{10})).error, 0);
  struct stat status{};
  ASSERT_EQ(::stat((root / "f").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode, S_IFREG | 0640u);
  EXPECT_EQ(static_cast<u64>(status.st_size), (u64{5} << 30) + 3);
  EXPECT_LT(status.st_blocks, 1000);
}

TEST_F(Files, DataBesideTheMessage) {
  ASSERT_EQ(client->walk(kTop, 10, {}), 0);
  ASSERT_EQ(client->lcreate(10, "f"), 0);
  std::string one = "abc", two = "defgh";
  const iovec data[] = {{one.data(), one.size()}, {two.data(), two.size()}};
  std::vector<u8> bytes = Message(Type::kWrite).put(u32{10}).put(u64{0}).put(u32{7}).finish();
  base::store(bytes.data(), static_cast<u32>(bytes.size()) + 7);
  const Reply reply = server->serve({.message = bytes, .data = data}, {.size = 100, .data = {}});
  EXPECT_EQ(reply.head[4], 119);
  EXPECT_EQ(get_file(root / "f"), "abcdefg");
  base::store(bytes.data() + 19, u32{9});  // more than there is
  EXPECT_EQ(server->serve({.message = bytes, .data = data}, {.size = 100, .data = {}}).head[4], 7);
}

TEST_F(Files, OpenFlags) {
  put_file(root / "f", "content");
  const u32 reader = open_file({"f"}, 0);
  EXPECT_EQ(client->write(reader, 0, "x"), EBADF);
  EXPECT_EQ(client->lopen(reader, 0), EBADF) << "open already";
  const u32 appender = open_file({"f"}, 02001);
  EXPECT_EQ(client->write(appender, 0, "+more"), 0);
  EXPECT_EQ(get_file(root / "f"), "content+more");
  EXPECT_EQ(client->read(appender, 0, 5).error, EBADF);
  open_file({"f"}, 01001);
  EXPECT_EQ(get_file(root / "f"), "");
  EXPECT_EQ(client->read(walk({"f"}), 0, 5).error, EBADF) << "not open";
  EXPECT_EQ(client->lopen(walk({"f"}), 0200000), ENOTDIR);
  EXPECT_EQ(client->lopen(walk({}), 2), EISDIR);
  EXPECT_EQ(client->read(open_file({}), 0, 5).error, EISDIR);
}

TEST_F(Files, CreateMeetsWhatIsThere) {
  put_file(root / "f", "content");
  fs::create_directory(root / "d");
  ASSERT_EQ(::mkfifo((root / "p").c_str(), 0666), 0);
  fs::create_symlink("../canary", root / "out");
  fs::create_symlink("nowhere", root / "dangling");
  EXPECT_EQ(client->lcreate(walk({}), "f", 0200 | 2), EEXIST);
  const u32 file = walk({});
  EXPECT_EQ(client->lcreate(file, "f", 2), 0);
  EXPECT_EQ(content(file), "content");
  EXPECT_EQ(client->lcreate(walk({}), "f", 2 | 01000), 0);
  EXPECT_EQ(get_file(root / "f"), "");
  EXPECT_EQ(client->lcreate(walk({}), "d"), EISDIR);
  EXPECT_EQ(client->lcreate(walk({}), "p"), EACCES) << "a FIFO is not opened, nor waited for";
  EXPECT_EQ(client->lcreate(walk({}), "out"), ELOOP);
  EXPECT_EQ(client->lcreate(walk({}), "out", 2 | 01000), ELOOP);
  EXPECT_EQ(client->lcreate(walk({}), "dangling"), ELOOP);
  EXPECT_EQ(client->lcreate(walk({"f"}), "x"), ENOTDIR);
  for (const char* name : {"", ".", "..", "a/b", "../x"})
    EXPECT_EQ(client->lcreate(walk({}), name), EINVAL) << name;
}

TEST_F(Files, SpecialFilesAreNeverOpened) {
  ASSERT_EQ(::mkfifo((root / "p").c_str(), 0666), 0);
  fs::create_symlink("../canary", root / "l");
  EXPECT_EQ(client->mknod(kTop, "sock", S_IFSOCK | 0600), 0);
  for (const char* name : {"p", "sock"})
    for (const u32 flags : {0, 1, 2}) EXPECT_EQ(client->lopen(walk({name}), flags), EACCES);
  EXPECT_EQ(client->lopen(walk({"l"})), ELOOP);
  EXPECT_EQ(client->mknod(kTop, "dev", S_IFCHR | 0600), EPERM);
  EXPECT_EQ(client->mknod(kTop, "dev", S_IFBLK | 0600), EPERM);
  if (::geteuid() == 0 && ::mknod((root / "null").c_str(), S_IFCHR | 0666, 0x103) == 0)
    EXPECT_EQ(client->lopen(walk({"null"}), 2), EACCES);
}

TEST_F(Files, UnlinkedFilesStay) {
  put_file(root / "f", "content");
  const u32 file = open_file({"f"}, 2);
  const u32 held = walk({"f"});
  ASSERT_EQ(client->unlink_at(kTop, "f"), 0);
  EXPECT_EQ(content(file), "content");
  EXPECT_EQ(client->write(file, 0, "C"), 0);
  EXPECT_EQ(client->setattr(file, 8, 0, 0, 0, 3), 0);
  EXPECT_EQ(client->lopen(held), 0) << "the inode is held";
  EXPECT_EQ(content(held), "Con");
  EXPECT_EQ(client->remove(walk({"..", "s"})), EBUSY);
}

TEST_F(Files, ListsLargeDirectoriesInPieces) {
  std::map<std::string, bool> names;
  for (int i = 0; i < 2000; ++i)
    put_file(root / (std::to_string(i) + std::string(static_cast<std::size_t>(i % 200), 'n')), "");
  fs::create_directory(root / "dir");
  fs::create_symlink("x", root / "lnk");
  for (const u32 count : {300u, 4096u, 60000u}) {
    const u32 folder = open_file({});
    const auto entries = client->list(folder, count);
    EXPECT_EQ(entries.size(), 2004u) << count;
    EXPECT_EQ(entries.at("dir").kind, DT_DIR);
    EXPECT_EQ(entries.at("lnk").kind, DT_LNK);
    EXPECT_EQ(entries.at("0").kind, DT_REG);
    EXPECT_EQ(client->list(folder, count).size(), 2004u) << "once more from the start";
    client->clunk(folder);
  }
  const u32 folder = open_file({});
  EXPECT_EQ(client->send(Message(Type::kReaddir).put(folder).put(u64{0}).put(u32{20})).error,
            EINVAL);
  Attributes top{};
  client->getattr(kRoot, &top);
  EXPECT_EQ(client->list(folder).at("..").path, top.qid_path) << "nothing of above the share";
  EXPECT_EQ(client->send(Message(Type::kReaddir).put(folder).put(~u64{0}).put(u32{999})).error,
            EINVAL);
}

TEST_F(Files, LocksAreTakenOnTheHost) {
  put_file(root / "f", "content");
  const u32 one = open_file({"f"}, 2), two = open_file({"f"}, 2);
  const auto host = base::open_file(root / "f", O_RDWR);
  struct flock range{};
  range.l_type = F_WRLCK;
  EXPECT_EQ(client->lock(one, 1, 0, 10), 0);
  EXPECT_LT(::fcntl(host->get(), F_OFD_SETLK, &range), 0) << "the host sees the guest's lock";
  EXPECT_EQ(client->lock(two, 1, 0, 10), 0) << "within the guest its kernel decides";
  EXPECT_EQ(client->lock(one, 2, 0, 0), 0);
  EXPECT_EQ(::fcntl(host->get(), F_OFD_SETLK, &range), 0);
  client->clunk(one);
  EXPECT_EQ(client->lock(two, 0, 0, 10), 1) << "blocked by the host's";
  const auto query = [&] {
    return client->send(
        Message(Type::kGetLock).put(two).put(u8{1}).put(u64{0}).put(u64{0}).put(u32{7}).text("g"));
  };
  EXPECT_EQ(query().at<u8>(0), 1);
  range.l_type = F_UNLCK;
  ::fcntl(host->get(), F_OFD_SETLK, &range);
  EXPECT_EQ(query().at<u8>(0), 2);
  EXPECT_EQ(client->lock(two, 3, 0, 0), -EINVAL);
  EXPECT_EQ(client->lock(two, 1, ~u64{0}, 1), -EOVERFLOW);
  EXPECT_EQ(client->lock(walk({"f"}), 1, 0, 0), -EBADF);
  EXPECT_EQ(client->lock(open_file({"f"}, 0), 1, 0, 0), 0) << "flock of a file open for reading";
}

TEST_F(Names, MakesAndRemoves) {
  EXPECT_EQ(client->mkdir(kTop, "d", 0701), 0);
  EXPECT_EQ(client->mkdir(kTop, "d"), EEXIST);
  EXPECT_EQ(client->symlink(kTop, "l", "../anything at all"), 0);
  EXPECT_EQ(fs::read_symlink(root / "l"), "../anything at all");
  EXPECT_EQ(client->readlink(walk({"l"})).fields.substr(2), "../anything at all");
  EXPECT_EQ(client->readlink(walk({"d"})).error, EINVAL);
  EXPECT_EQ(client->symlink(kTop, "m", std::string(5000, 'x')), ENAMETOOLONG);
  EXPECT_EQ(client->symlink(kTop, "m", std::string("a\0b", 3)), EINVAL);
  EXPECT_EQ(client->symlink(kTop, "m", ""), ENOENT);
  EXPECT_EQ(client->mknod(kTop, "p", S_IFIFO | 0620), 0);
  struct stat status{};
  ASSERT_EQ(::stat((root / "p").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode, S_IFIFO | 0620u);
  ASSERT_EQ(::stat((root / "d").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode, S_IFDIR | 0701u);
  EXPECT_EQ(client->unlink_at(kTop, "d"), EISDIR);
  EXPECT_EQ(client->unlink_at(kTop, "p", AT_REMOVEDIR), ENOTDIR);
  put_file(root / "d/f", "");
  EXPECT_EQ(client->unlink_at(kTop, "d", AT_REMOVEDIR), ENOTEMPTY);
  EXPECT_EQ(client->unlink_at(kTop, "d", 1), EINVAL);
  const u32 inside = walk({"d", "f"});
  EXPECT_EQ(client->remove(inside), 0);
  EXPECT_EQ(client->getattr(inside), EBADF) << "remove clunks";
  EXPECT_EQ(client->remove(walk({"d"})), 0);
  EXPECT_EQ(client->unlink_at(kTop, "p"), 0);
  EXPECT_EQ(client->unlink_at(kTop, ".."), EINVAL);
  EXPECT_EQ(client->mkdir(kTop, std::string(256, 'n')), ENAMETOOLONG);
  EXPECT_EQ(client->mkdir(kTop, std::string(255, 'n')), 0);
  EXPECT_EQ(client->mkdir(kTop, "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80"), 0);
}

TEST_F(Names, LinksAndRenames) {
  put_file(root / "f", "content");
  fs::create_directories(root / "d/e");
  fs::create_symlink("../canary", root / "out");
  const u32 file = walk({"f"}), folder = walk({"d"});
  EXPECT_EQ(client->link(folder, file, "hard"), 0);
  EXPECT_EQ(fs::hard_link_count(root / "f"), 2u);
  EXPECT_EQ(client->link(kTop, folder, "hard"), EPERM);
  EXPECT_EQ(client->link(folder, walk({"out"}), "out2"), 0) << "the link itself";
  EXPECT_EQ(fs::read_symlink(root / "d/out2"), "../canary");
  EXPECT_EQ(client->link(kTop, file, "f"), EEXIST);
  EXPECT_EQ(client->rename_at(kTop, "f", folder, "g"), 0);
  EXPECT_EQ(get_file(root / "d/g"), "content");
  EXPECT_EQ(client->rename_at(kTop, "none", folder, "g"), ENOENT);
  EXPECT_EQ(client->rename_at(kTop, "d", walk({"d", "e"}), "x"), EINVAL) << "into itself";
  EXPECT_EQ(client->rename_at(kTop, "..", kTop, "x"), EINVAL);
  const u32 moved = walk({"d", "g"});
  EXPECT_EQ(client->rename(moved, kTop, "f"), 0);
  EXPECT_EQ(client->rename(moved, kTop, "f2"), 0) << "the fid knows its new name";
  EXPECT_EQ(client->rename(file, kTop, "f3"), ENOENT) << "its old name is gone";
  put_file(root / "f2.new", "another");
  fs::rename(root / "f2.new", root / "f2");
  EXPECT_EQ(client->rename(moved, kTop, "f4"), ESTALE) << "another file has its name";
  EXPECT_EQ(client->remove(moved), ESTALE);
  EXPECT_EQ(get_file(root / "f2"), "another");
}

TEST_F(AttributesOf, AreSetAndShown) {
  put_file(root / "f", "content");
  const u32 file = walk({"f"});
  Attributes before{}, after{};
  ASSERT_EQ(client->getattr(file, &before), 0);
  EXPECT_EQ(before.size, 7u);
  EXPECT_EQ(client->setattr(file, 1, 0604), 0);
  EXPECT_EQ(client->setattr(file, 8, 0, 0, 0, 3), 0);
  EXPECT_EQ(client->setattr(file, 0x10 | 0x20 | 0x80 | 0x100), 0);
  ASSERT_EQ(client->getattr(file, &after), 0);
  EXPECT_EQ(after.mode, S_IFREG | 0604u);
  EXPECT_EQ(after.size, 3u);
  EXPECT_EQ(after.qid_path, before.qid_path);
  struct stat status{};
  ASSERT_EQ(::stat((root / "f").c_str(), &status), 0);
  EXPECT_EQ(status.st_atim.tv_sec, 100);
  EXPECT_EQ(status.st_atim.tv_nsec, 5);
  EXPECT_EQ(status.st_mtim.tv_sec, 200);
  EXPECT_EQ(client->setattr(file, 0x20), 0) << "the modification time of now";
  ASSERT_EQ(::stat((root / "f").c_str(), &status), 0);
  EXPECT_GT(status.st_mtim.tv_sec, 200);
  EXPECT_EQ(status.st_atim.tv_sec, 100);
  EXPECT_EQ(client->setattr(kTop, 8), EISDIR);
  EXPECT_EQ(client->setattr(file, 8, 0, 0, 0, ~u64{0}), EINVAL);
  fs::create_symlink("../canary", root / "out");
  EXPECT_EQ(client->setattr(walk({"out"}), 1, 0777), EOPNOTSUPP);
  EXPECT_EQ(client->setattr(walk({"out"}), 8, 0, 0, 0, 0), EINVAL);
  EXPECT_EQ(client->send(Message(Type::kStatfs).put(kTop)).at<u32>(0), 0x01021997u);
  EXPECT_EQ(client->send(Message(Type::kStatfs).put(kRoot)).error, 0);
}

TEST_F(AttributesOf, ExtendedOnesOfUsersOnly) {
  put_file(root / "f", "content");
  if (::setxattr((root / "f").c_str(), "user.there", "value", 5, 0) != 0)
    GTEST_SKIP() << "no extended attributes here";
  const u32 list = 200, value = 201;
  EXPECT_EQ(client->xattr_walk(walk({"f"}), value, "user.there"), 0);
  EXPECT_EQ(content(value), "value");
  EXPECT_EQ(client->xattr_walk(walk({"f"}), 202, "user.none"), ENODATA);
  EXPECT_EQ(client->xattr_walk(walk({"f"}), 202, "security.capability"), ENODATA);
  const u32 maker = walk({"f"});
  EXPECT_EQ(client->xattr_create(maker, "user.new", 3), 0);
  EXPECT_EQ(client->write(maker, 0, "ab"), 0);
  EXPECT_EQ(client->write(maker, 2, "cd"), EINVAL) << "more than announced";
  EXPECT_EQ(client->write(maker, 2, "c"), 0);
  EXPECT_EQ(client->clunk(maker), 0);
  EXPECT_EQ(client->xattr_walk(walk({"f"}), list, ""), 0);
  EXPECT_EQ(content(list).size(),
            std::string("user.there").size() + std::string("user.new").size() + 2);
  const u32 remover = walk({"f"});
  EXPECT_EQ(client->xattr_create(remover, "user.new", 0, XATTR_REPLACE), 0);
  EXPECT_EQ(client->clunk(remover), 0);
  EXPECT_LT(::getxattr((root / "f").c_str(), "user.new", nullptr, 0), 0);
  for (const char* name : {"trusted.x", "security.capability", "system.posix_acl_access", "user."})
    EXPECT_EQ(client->xattr_create(walk({"f"}), name, 1), EOPNOTSUPP) << name;
  EXPECT_EQ(client->xattr_create(walk({"f"}), "user.big", Server::kMaxXattr + 1), E2BIG);
  const u32 part = walk({"f"});
  EXPECT_EQ(client->xattr_create(part, "user.part", 5), 0);
  EXPECT_EQ(client->clunk(part), EINVAL) << "not all of the value came";
  int error = 0;
  for (int i = 0; i < 100 && error == 0; ++i)
    error = client->xattr_create(walk({"f"}), "user.big", Server::kMaxXattr);
  EXPECT_EQ(error, ENOMEM) << "waiting values are limited together";
}

}  // namespace
}  // namespace smol::share

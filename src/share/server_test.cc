// Sessions, walks, the synthetic root, shares that come and go, and malformed messages.
#include "share/server.h"

#include <fcntl.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>

#include "share/test_folder.h"

namespace smol::share {
namespace {

using namespace testing;

using Session = ServerTest;
using Shares = ServerTest;

TEST_F(Session, VersionSetsTheMessageSizeAndDropsFids) {
  EXPECT_EQ(client->getattr(kTop), 0);
  const Answer answer = client->version(~u32{0});
  EXPECT_EQ(answer.at<u32>(0), Server::kMaxMessage);
  EXPECT_EQ(answer.fields.substr(6), "9P2000.L");
  EXPECT_EQ(client->getattr(kTop), EBADF);
  EXPECT_EQ(client->version(100).error, EMSGSIZE);
  const Answer other = client->send(Message(Type::kVersion).put(u32{8192}).text("9P2000.u"));
  EXPECT_EQ(other.fields.substr(6), "unknown");
}

TEST_F(Session, AttachGivesTheRootOrOneShare) {
  EXPECT_EQ(client->attach(kRoot), EBADF) << "the fid is in use";
  EXPECT_EQ(client->attach(kNoFid), EBADF);
  EXPECT_EQ(client->attach(50, "none"), ENOENT);
  put_file(root / "f", "content");
  EXPECT_EQ(client->attach(51, "/s"), 0);
  EXPECT_EQ(client->walk(51, 52, {"f"}), 0);
  EXPECT_EQ(client->send(Message(Type::kAuth).put(u32{9}).text("u").text("").put(u32{0})).error,
            EOPNOTSUPP);
}

TEST_F(Session, WalksStopWhereTheyMust) {
  fs::create_directories(root / "a/b");
  put_file(root / "a/f", "1");
  EXPECT_EQ(client->walk(kTop, 10, {"a", "b"}), 0);
  EXPECT_EQ(client->walk(kTop, 11, {"none", "b"}), ENOENT);
  EXPECT_EQ(client->walk(kTop, 11, {"a", "none"}), -1) << "part of the way: no error, no fid";
  EXPECT_EQ(client->getattr(11), EBADF);
  EXPECT_EQ(client->walk(kTop, 11, {"a", "f", "x"}), -1);
  EXPECT_EQ(client->walk(kTop, 10, {}), EBADF) << "the new fid is in use";
  EXPECT_EQ(client->walk(10, 10, {}), 0) << "onto itself";
  EXPECT_EQ(client->walk(kTop, 12, std::vector<std::string>(17, "a")), EINVAL);
  for (const std::string& name : {std::string(), std::string("a/b"), std::string("/"),
                                  std::string("../canary"), std::string("a\0b", 3)})
    EXPECT_EQ(client->walk(kTop, 13, {name}), EINVAL) << name;
  EXPECT_EQ(client->walk(kTop, 14, {std::string(256, 'x')}), ENAMETOOLONG);
}

TEST_F(Session, DotDotEndsAtTheRoot) {
  fs::create_directories(root / "a/b");
  Attributes top{}, again{}, synthetic{};
  EXPECT_EQ(client->getattr(kTop, &top), 0);
  EXPECT_EQ(client->getattr(kRoot, &synthetic), 0);
  EXPECT_EQ(client->getattr(walk({"a", "b", "..", ".."}), &again), 0);
  EXPECT_EQ(again.qid_path, top.qid_path);
  const u32 above = walk({"a", "..", "..", "..", ".."});
  EXPECT_EQ(client->getattr(above, &again), 0);
  EXPECT_EQ(again.qid_path, synthetic.qid_path);
  EXPECT_EQ(client->walk(above, 60, {"canary"}), ENOENT);
  EXPECT_EQ(client->walk(above, 60, {"s", "a"}), 0);
}

TEST_F(Session, ADirectoryThatTheHostMovedAwayHasNoWayUp) {
  fs::create_directories(root / "a/b");
  const u32 b = walk({"a", "b"});
  fs::rename(root / "a/b", outside / "b");
  EXPECT_EQ(client->walk(b, 60, {".."}), ESTALE);
  EXPECT_EQ(client->walk(b, 60, {"..", "canary"}), ESTALE);
}

TEST_F(Session, TheSyntheticRootIsReadOnly) {
  Attributes attributes{};
  EXPECT_EQ(client->getattr(kRoot, &attributes), 0);
  EXPECT_EQ(attributes.mode, S_IFDIR | 0555u);
  EXPECT_EQ(client->mkdir(kRoot, "d"), EROFS);
  EXPECT_EQ(client->lcreate(kRoot, "f"), EROFS);
  EXPECT_EQ(client->symlink(kRoot, "l", "x"), EROFS);
  EXPECT_EQ(client->unlink_at(kRoot, "s", AT_REMOVEDIR), EROFS);
  EXPECT_EQ(client->rename_at(kRoot, "s", kRoot, "t"), EROFS);
  EXPECT_EQ(client->setattr(kRoot, 1, 0777), EROFS);
  EXPECT_EQ(client->remove(walk({".."})), EROFS);
  EXPECT_EQ(client->lopen(kRoot, 1), EISDIR);
  EXPECT_EQ(client->lopen(kRoot, 0), 0);
  EXPECT_EQ(client->list(kRoot).size(), 3u);
  EXPECT_EQ(client->read(kRoot, 0, 10).error, EOPNOTSUPP);
}

TEST_F(Session, MalformedMessagesAreRefused) {
  for (int type = 0; type < 256; ++type) {
    if (type == 108) continue;  // Tflush needs nothing that is not there
    const Answer answer = client->send(Message(static_cast<Type>(type)));
    EXPECT_NE(answer.error, 0) << type;
  }
  std::vector<u8> bytes = Message(Type::kClunk).put(kTop).finish();
  base::store(bytes.data(), u32{3});  // size below a header's
  Reply reply = server->serve({.message = bytes, .data = {}}, {.size = 100, .data = {}});
  EXPECT_EQ(reply.head[4], 7);
  base::store(bytes.data(), ~u32{0});  // larger than what is there
  reply = server->serve({.message = bytes, .data = {}}, {.size = 100, .data = {}});
  EXPECT_EQ(reply.head[4], 121);
  reply = server->serve({.message = bytes, .data = {}}, {.size = 10, .data = {}});
  EXPECT_TRUE(reply.head.empty()) << "no room even for an error";
}

TEST_F(Session, RepliesFitTheirRoom) {
  put_file(root / "f", std::string(10000, 'x'));
  const u32 file = open_file({"f"});
  EXPECT_EQ(client->read(file, 0, 9000, 100).at<u32>(0), 89u);
  EXPECT_EQ(client->send(Message(Type::kGetattr).put(file).put(u64{0}), 50).error, EMSGSIZE);
  client->version(4096);
  ASSERT_EQ(client->attach(kRoot), 0);
  ASSERT_EQ(client->walk(kRoot, 5, {"s", "f"}), 0);
  ASSERT_EQ(client->lopen(5), 0);
  EXPECT_EQ(client->read(5, 0, 9000).at<u32>(0), 4096u - kReadReplyHead);
}

TEST_F(Session, FidsAndDescriptorsAreLimited) {
  open(false, {}, {}, 20);
  put_file(root / "f", "1");
  u32 fid = 1000;
  int error = 0;
  while ((error = client->walk(kTop, fid, {"f"})) == 0 && fid < 1100) ++fid;
  EXPECT_EQ(error, EMFILE);
  EXPECT_EQ(client->lopen(1000), EMFILE);
  EXPECT_EQ(client->clunk(1001), 0);
  EXPECT_EQ(client->lopen(1000), 0) << "works again with a descriptor free";
}

TEST_F(Shares, BadOnesAreRefusedByName) {
  const auto error = [&](std::string tag, std::string path) {
    const auto added = server->add({.tag = tag, .path = path});
    return added ? "" : added.error().chain();
  };
  EXPECT_NE(error("s", root), "");
  EXPECT_NE(error("s", root).find("there already"), std::string::npos);
  EXPECT_NE(error("a/b", root).find("a/b"), std::string::npos);
  for (const char* tag : {"", ".", "..", "a b", "\n"}) EXPECT_NE(error(tag, root), "") << tag;
  EXPECT_NE(error("t", outside / "none").find("No such file"), std::string::npos);
  EXPECT_NE(error("t", outside / "canary").find("not a directory"), std::string::npos);
  EXPECT_FALSE(server->remove("none"));
  EXPECT_EQ(server->tags(), std::vector<std::string>{"s"});
}

TEST_F(Shares, AreListedAndSeparate) {
  fs::create_directory(outside / "two");
  put_file(outside / "two/g", "2");
  put_file(root / "f", "1");
  ASSERT_TRUE(server->add({.tag = "t", .path = (outside / "two").string()}));
  ASSERT_EQ(client->walk(kRoot, 10, {}), 0);
  ASSERT_EQ(client->lopen(10), 0);
  for (const u32 count : {40, 8192}) {
    const auto entries = client->list(10, count);
    EXPECT_EQ(entries.size(), 4u);
    EXPECT_TRUE(entries.contains("s") && entries.contains("t"));
  }
  ASSERT_EQ(client->walk(kRoot, 11, {"t", "g"}), 0);
  EXPECT_EQ(client->walk(kRoot, 12, {"t", "f"}), -1);
  ASSERT_EQ(client->walk(kRoot, 13, {"t"}), 0);
  EXPECT_EQ(client->link(kTop, 11, "hard"), EXDEV);
  EXPECT_EQ(client->rename_at(13, "g", kTop, "g"), EXDEV);
  EXPECT_EQ(client->rename(11, kTop, "g"), EXDEV);
}

TEST_F(Shares, ARemovedOneIsGoneAndTheHostIsLeftAlone) {
  fs::create_directory(root / "d");
  put_file(root / "f", "content");
  const u32 file = open_file({"f"}, 2);
  const u32 held = walk({"f"});
  const u32 folder = open_file({"d"});
  const u32 xattr = walk({"f"});
  ASSERT_EQ(client->xattr_create(xattr, "user.x", 1), 0);
  ASSERT_EQ(client->write(xattr, 0, "v"), 0);
  ASSERT_TRUE(server->remove("s"));
  EXPECT_EQ(server->counters().descriptors, 0u);
  EXPECT_EQ(client->read(file, 0, 10).error, ESTALE);
  EXPECT_EQ(client->write(file, 0, "no"), ESTALE);
  EXPECT_EQ(client->getattr(held), ESTALE);
  EXPECT_EQ(client->lopen(held), ESTALE);
  EXPECT_EQ(client->walk(held, 70, {}), ESTALE);
  EXPECT_EQ(client->walk(folder, 71, {".."}), ESTALE);
  EXPECT_EQ(client->send(Message(Type::kReaddir).put(folder).put(u64{0}).put(u32{500})).error,
            ESTALE);
  EXPECT_EQ(client->mkdir(folder, "new"), ESTALE);
  EXPECT_EQ(client->send(Message(Type::kFsync).put(file).put(u32{0})).error, ESTALE);
  EXPECT_EQ(client->lock(file, 0, 0, 0), -ESTALE);
  EXPECT_EQ(client->send(Message(Type::kStatfs).put(folder)).error, ESTALE);
  EXPECT_EQ(client->remove(held), ESTALE);
  EXPECT_EQ(client->clunk(xattr), ESTALE);
  EXPECT_EQ(client->clunk(file), 0);
  EXPECT_EQ(client->walk(kRoot, 72, {"s"}), ENOENT);
  EXPECT_EQ(get_file(root / "f"), "content");
  EXPECT_LT(::getxattr((root / "f").c_str(), "user.x", nullptr, 0), 0);
  ASSERT_TRUE(server->add({.tag = "s", .path = root.string()}));
  EXPECT_EQ(client->getattr(folder), ESTALE) << "a new share of the same name is another one";
  EXPECT_EQ(client->walk(kRoot, 73, {"s", "f"}), 0);
}

TEST_F(Shares, ReadOnlyRefusesEveryChange) {
  open(true);
  fs::create_directory(root / "d");
  put_file(root / "f", "content");
  const u32 file = open_file({"f"});
  EXPECT_EQ(content(file), "content");
  EXPECT_EQ(client->write(file, 0, "x"), EROFS);
  for (const u32 flags : {1u, 2u, 01000u, 02001u})
    EXPECT_EQ(client->lopen(walk({"f"}), flags), EROFS);
  EXPECT_EQ(client->lcreate(walk({}), "new"), EROFS);
  EXPECT_EQ(client->mkdir(kTop, "new"), EROFS);
  EXPECT_EQ(client->symlink(kTop, "new", "x"), EROFS);
  EXPECT_EQ(client->mknod(kTop, "new", S_IFIFO | 0600), EROFS);
  EXPECT_EQ(client->link(kTop, file, "new"), EROFS);
  EXPECT_EQ(client->rename_at(kTop, "f", kTop, "new"), EROFS);
  EXPECT_EQ(client->rename(walk({"f"}), kTop, "new"), EROFS);
  EXPECT_EQ(client->unlink_at(kTop, "f"), EROFS);
  EXPECT_EQ(client->remove(walk({"f"})), EROFS);
  for (u32 bit = 0; bit < 9; ++bit) EXPECT_EQ(client->setattr(file, 1u << bit, 0, 1, 1), EROFS);
  EXPECT_EQ(client->xattr_create(walk({"f"}), "user.x", 1), EROFS);
  EXPECT_EQ(client->list(open_file({})).size(), 4u);
  EXPECT_EQ(get_file(root / "f"), "content");
}

TEST_F(Shares, TheSameDirectoryTwiceHasEachItsRules) {
  put_file(root / "f", "content");
  ASSERT_TRUE(server->add({.tag = "ro", .path = root.string(), .read_only = true}));
  ASSERT_EQ(client->walk(kRoot, 10, {"ro", "f"}), 0);
  EXPECT_EQ(client->lopen(10, 2), EROFS);
  EXPECT_EQ(client->link(kTop, 10, "hard"), EXDEV);
  EXPECT_EQ(client->lopen(walk({"f"}), 2), 0);
}

}  // namespace
}  // namespace smol::share

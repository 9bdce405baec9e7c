// For tests: a 9P2000.L client that speaks to a server directly, byte by byte as a guest would.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "share/server.h"

namespace smol::share::testing {

class Message {
 public:
  explicit Message(Type type, u16 tag = 1) {
    put(u32{0});
    put(static_cast<u8>(type));
    put(tag);
  }
  template <class T>
    requires std::is_arithmetic_v<T>
  Message& put(T value) {
    const ConstByteSpan bytes = base::bytes_of(value);
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    return *this;
  }
  Message& text(std::string_view text) {
    put(static_cast<u16>(text.size()));
    return raw(text);
  }
  Message& raw(std::string_view text) {
    bytes_.insert(bytes_.end(), text.begin(), text.end());
    return *this;
  }
  std::vector<u8> finish() const {
    std::vector<u8> bytes = bytes_;
    base::store(bytes.data(), static_cast<u32>(bytes.size()));
    return bytes;
  }

 private:
  std::vector<u8> bytes_;
};

struct Answer {
  u8 type = 0;
  int error = 0;  // of an Rlerror
  std::string fields;

  template <class T>
  T at(std::size_t offset) const {
    T value{};
    EXPECT_LE(offset + sizeof(T), fields.size());
    if (offset + sizeof(T) <= fields.size()) std::memcpy(&value, fields.data() + offset, sizeof(T));
    return value;
  }
};

struct Entry {
  u64 next;
  u8 kind;
  u64 path;
};

// The fields of an Rgetattr that tests look at.
struct Attributes {
  u8 qid_type;
  u64 qid_path;
  u32 mode, uid, gid;
  u64 links, size;
};

class Client {
 public:
  explicit Client(Server& server) : server_(server) { version(); }

  Answer send(const Message& message, u32 room = Server::kMaxMessage) {
    const std::vector<u8> bytes = message.finish();
    std::string data(room > kReadReplyHead ? room - kReadReplyHead : 0, 0);
    const iovec buffer{data.data(), data.size()};
    const Reply reply =
        server_.serve({.message = bytes, .data = {}}, {.size = room, .data = {&buffer, 1}});
    Answer answer;
    EXPECT_GE(reply.head.size(), kHeaderSize);
    EXPECT_EQ(base::load<u32>(reply.head.data()), reply.head.size() + reply.data);
    EXPECT_LE(reply.head.size() + reply.data, room);
    answer.type = reply.head[4];
    answer.fields.assign(reinterpret_cast<const char*>(reply.head.data()) + kHeaderSize,
                         reply.head.size() - kHeaderSize);
    answer.fields += data.substr(0, reply.data);
    if (answer.type == 7) answer.error = static_cast<int>(answer.at<u32>(0));
    if (answer.error == 0) {
      EXPECT_EQ(answer.type, bytes[4] + 1);
    }
    return answer;
  }

  Answer version(u32 size = 65536) {
    return send(Message(Type::kVersion, 0xffff).put(size).text("9P2000.L"));
  }
  int attach(u32 fid, std::string_view where = "", u32 uid = 0) {
    return send(Message(Type::kAttach).put(fid).put(kNoFid).text("user").text(where).put(uid))
        .error;
  }
  // 0 only when each name was walked.
  int walk(u32 fid, u32 new_fid, const std::vector<std::string>& names) {
    Message message(Type::kWalk);
    message.put(fid).put(new_fid).put(static_cast<u16>(names.size()));
    for (const std::string& name : names) message.text(name);
    const Answer answer = send(message);
    if (answer.error != 0) return answer.error;
    return answer.at<u16>(0) == names.size() ? 0 : -1;
  }
  int clunk(u32 fid) { return send(Message(Type::kClunk).put(fid)).error; }
  int lopen(u32 fid, u32 flags = 0) {
    return send(Message(Type::kLopen).put(fid).put(flags)).error;
  }
  int lcreate(u32 fid, std::string_view name, u32 flags = 2, u32 mode = 0644, u32 gid = 0) {
    return send(Message(Type::kLcreate).put(fid).text(name).put(flags).put(mode).put(gid)).error;
  }
  Answer read(u32 fid, u64 offset, u32 count, u32 room = Server::kMaxMessage) {
    return send(Message(Type::kRead).put(fid).put(offset).put(count), room);
  }
  int write(u32 fid, u64 offset, std::string_view data) {
    const Answer answer = send(
        Message(Type::kWrite).put(fid).put(offset).put(static_cast<u32>(data.size())).raw(data));
    if (answer.error != 0) return answer.error;
    return answer.at<u32>(0) == data.size() ? 0 : -1;
  }
  int mkdir(u32 fid, std::string_view name, u32 mode = 0755, u32 gid = 0) {
    return send(Message(Type::kMkdir).put(fid).text(name).put(mode).put(gid)).error;
  }
  int symlink(u32 fid, std::string_view name, std::string_view target) {
    return send(Message(Type::kSymlink).put(fid).text(name).text(target).put(u32{0})).error;
  }
  int mknod(u32 fid, std::string_view name, u32 mode) {
    return send(Message(Type::kMknod)
                    .put(fid)
                    .text(name)
                    .put(mode)
                    .put(u32{1})
                    .put(u32{3})
                    .put(u32{0}))
        .error;
  }
  int link(u32 directory, u32 fid, std::string_view name) {
    return send(Message(Type::kLink).put(directory).put(fid).text(name)).error;
  }
  int rename_at(u32 from, std::string_view old_name, u32 to, std::string_view new_name) {
    return send(Message(Type::kRenameAt).put(from).text(old_name).put(to).text(new_name)).error;
  }
  int rename(u32 fid, u32 directory, std::string_view name) {
    return send(Message(Type::kRename).put(fid).put(directory).text(name)).error;
  }
  int unlink_at(u32 fid, std::string_view name, u32 flags = 0) {
    return send(Message(Type::kUnlinkAt).put(fid).text(name).put(flags)).error;
  }
  int remove(u32 fid) { return send(Message(Type::kRemove).put(fid)).error; }
  Answer readlink(u32 fid) { return send(Message(Type::kReadlink).put(fid)); }
  int getattr(u32 fid, Attributes* attributes = nullptr) {
    const Answer answer = send(Message(Type::kGetattr).put(fid).put(u64{0x7ff}));
    if (answer.error == 0 && attributes != nullptr)
      *attributes = {.qid_type = answer.at<u8>(8),
                     .qid_path = answer.at<u64>(13),
                     .mode = answer.at<u32>(21),
                     .uid = answer.at<u32>(25),
                     .gid = answer.at<u32>(29),
                     .links = answer.at<u64>(33),
                     .size = answer.at<u64>(49)};
    return answer.error;
  }
  int setattr(u32 fid, u32 valid, u32 mode = 0, u32 uid = 0, u32 gid = 0, u64 size = 0) {
    Message message(Type::kSetattr);
    message.put(fid).put(valid).put(mode).put(uid).put(gid).put(size);
    for (const u64 time : {100, 5, 200, 6}) message.put(time);
    return send(message).error;
  }
  int xattr_walk(u32 fid, u32 new_fid, std::string_view name) {
    return send(Message(Type::kXattrWalk).put(fid).put(new_fid).text(name)).error;
  }
  int xattr_create(u32 fid, std::string_view name, u64 size, u32 flags = 0) {
    return send(Message(Type::kXattrCreate).put(fid).text(name).put(size).put(flags)).error;
  }
  // status of the lock, or -errno.
  int lock(u32 fid, u8 type, u64 start, u64 length) {
    const Answer answer = send(Message(Type::kLock)
                                   .put(fid)
                                   .put(type)
                                   .put(u32{0})
                                   .put(start)
                                   .put(length)
                                   .put(u32{1})
                                   .text("guest"));
    return answer.error != 0 ? -answer.error : answer.at<u8>(0);
  }
  // All entries by name; count: bytes a request.
  std::map<std::string, Entry> list(u32 fid, u32 count = 8192) {
    std::map<std::string, Entry> entries;
    u64 offset = 0;
    for (;;) {
      const Answer answer = send(Message(Type::kReaddir).put(fid).put(offset).put(count));
      EXPECT_EQ(answer.error, 0);
      if (answer.error != 0 || answer.at<u32>(0) == 0) return entries;
      EXPECT_LE(answer.at<u32>(0), count);
      for (std::size_t at = 4; at < answer.fields.size();) {
        const u64 path = answer.at<u64>(at + 5);
        offset = answer.at<u64>(at + 13);
        const u8 kind = answer.at<u8>(at + 21);
        const u16 size = answer.at<u16>(at + 22);
        const std::string name = answer.fields.substr(at + 24, size);
        EXPECT_TRUE(entries.emplace(name, Entry{offset, kind, path}).second) << name << " twice";
        at += 24u + size;
      }
    }
  }

 private:
  Server& server_;
};

}  // namespace smol::share::testing

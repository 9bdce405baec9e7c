// 9P2000.L on the wire: message types, and bounds-checked reading and writing of fields.
//
// Sources: the 9P2000 manual pages intro(5) and walk(5); the 9P2000.L description of the diod
// project; Linux, include/net/9p/9p.h. Everything is little-endian; a string is a 16-bit length and
// its bytes; a message is size[4] type[1] tag[2] and its fields, size counting itself.
#pragma once

#include <string_view>
#include <vector>

#include "base/bytes.h"

namespace smol::share {

// Types of requests; a reply's is its request's plus one.
enum class Type : u8 {
  kError = 6,  // only its reply exists
  kStatfs = 8,
  kLopen = 12,
  kLcreate = 14,
  kSymlink = 16,
  kMknod = 18,
  kRename = 20,
  kReadlink = 22,
  kGetattr = 24,
  kSetattr = 26,
  kXattrWalk = 30,
  kXattrCreate = 32,
  kReaddir = 40,
  kFsync = 50,
  kLock = 52,
  kGetLock = 54,
  kLink = 70,
  kMkdir = 72,
  kRenameAt = 74,
  kUnlinkAt = 76,
  kVersion = 100,
  kAuth = 102,
  kAttach = 104,
  kFlush = 108,
  kWalk = 110,
  kRead = 116,
  kWrite = 118,
  kClunk = 120,
  kRemove = 122,
};

inline constexpr u32 kHeaderSize = 7;         // size, type, tag
inline constexpr u32 kReadReplyHead = 11;     // header, count; then the data
inline constexpr u32 kWriteRequestHead = 23;  // header, fid, offset, count; then the data
inline constexpr u32 kErrorReplySize = 11;
inline constexpr u32 kNoFid = ~u32{0};
inline constexpr u16 kMaxWalk = 16;  // names of one walk

// What the server calls a file: kind of object, version, and a number that no two files share.
struct Qid {
  u8 type = 0;
  u32 version = 0;
  u64 path = 0;
};
inline constexpr u8 kQidDirectory = 0x80;
inline constexpr u8 kQidSymlink = 0x02;
inline constexpr u8 kQidFile = 0x00;

// Reads fields; after the first that is not there, all are 0 or empty and complete() is false.
class Decoder {
 public:
  explicit Decoder(ConstByteSpan bytes) : rest_(bytes) {}

  template <class T>
  T take() {
    T value{};
    if (rest_.size() < sizeof(T)) {
      fail();
    } else {
      value = base::load<T>(rest_.data());
      rest_ = rest_.subspan(sizeof(T));
    }
    return value;
  }
  // Points into the message.
  std::string_view text() {
    const u16 size = take<u16>();
    if (rest_.size() < size) fail();
    if (failed_) return {};
    const std::string_view value(reinterpret_cast<const char*>(rest_.data()), size);
    rest_ = rest_.subspan(size);
    return value;
  }
  bool at_end() const { return rest_.empty(); }
  bool complete() const { return !failed_; }

 private:
  void fail() {
    failed_ = true;
    rest_ = {};
  }
  ConstByteSpan rest_;
  bool failed_ = false;
};

// Appends fields to a buffer that keeps its memory.
class Encoder {
 public:
  explicit Encoder(std::vector<u8>& out) : out_(out) {}

  template <class T>
  void put(T value) {
    const ConstByteSpan bytes = base::bytes_of(value);
    out_.insert(out_.end(), bytes.begin(), bytes.end());
  }
  void put_text(std::string_view text) {  // at most 65,535 bytes
    put(static_cast<u16>(text.size()));
    out_.insert(out_.end(), text.begin(), text.end());
  }
  void put_qid(const Qid& qid) {
    put(qid.type);
    put(qid.version);
    put(qid.path);
  }
  std::size_t size() const { return out_.size(); }
  // Overwrites what stands at position.
  template <class T>
  void set(std::size_t position, T value) {
    base::store(out_.data() + position, value);
  }
  void truncate(std::size_t size) { out_.resize(size); }

 private:
  std::vector<u8>& out_;
};

}  // namespace smol::share

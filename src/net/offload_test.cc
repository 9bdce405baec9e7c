#include "net/offload.h"

#include <gtest/gtest.h>

namespace smol::net {
namespace {

// A TCP frame whose checksums are the offload's to make.
std::string tcp_frame(bool v6, std::size_t payload, u8 flags) {
  std::string frame(12, 'm');
  frame += v6 ? "\x86\xdd" : std::string("\x08\0", 2);
  if (v6) {
    frame += std::string("\x60\0\0\0\0\0\6\x40", 8) + std::string(16, '\1') + std::string(16, '\2');
  } else {
    frame += std::string("\x45\0\0\0\xff\xff\0\0\x40\6\0\0\1\1\1\1\2\2\2\2", 20);
  }
  frame += std::string("\0\x50\0\x51\xff\xff\xff\0", 8) + std::string(4, 'a') + "\x60" +
           static_cast<char>(flags) + std::string(6, 0) + "\1\1\1\1";
  for (std::size_t i = 0; i < payload; ++i) frame += static_cast<char>('a' + i % 26);
  return frame;
}

ByteSpan span_of(std::string& text) { return {reinterpret_cast<u8*>(text.data()), text.size()}; }

void expect_sound(const std::string& frame, bool v6) {
  const ConstByteSpan bytes(reinterpret_cast<const u8*>(frame.data()), frame.size());
  const std::size_t tcp = v6 ? 54 : 34;
  if (!v6) EXPECT_EQ(fold_checksum(add_checksum(bytes.subspan(14, 20))), 0);
  EXPECT_EQ(fold_checksum(add_checksum(
                bytes.subspan(tcp),
                add_checksum(bytes.subspan(v6 ? 22 : 26, v6 ? 32 : 8), 6 + frame.size() - tcp))),
            0);
  const u32 length = static_cast<u32>(bytes[v6 ? 18 : 16]) << 8 | bytes[v6 ? 19 : 17];
  EXPECT_EQ(length, frame.size() - (v6 ? 54 : 14));
}

TEST(Offload, CutsSegments) {
  for (const bool v6 : {false, true}) {
    std::string frame = tcp_frame(v6, 2500, 0x99);  // CWR, ACK, PSH, FIN
    const OffloadHeader offload{
        .flags = 1, .gso_type = v6 ? OffloadHeader::kTcp6 : OffloadHeader::kTcp4, .gso_size = 1000};
    std::vector<std::string> pieces;
    ASSERT_TRUE(make_plain(span_of(frame), offload, [&](ByteSpan piece) {
      pieces.emplace_back(piece.begin(), piece.end());
    }));
    ASSERT_EQ(pieces.size(), 3u);
    const std::size_t head = frame.size() - 2500, tcp = v6 ? 54 : 34;
    std::string payload;
    for (const std::string& piece : pieces) {
      expect_sound(piece, v6);
      payload += piece.substr(head);
    }
    EXPECT_EQ(payload, frame.substr(head));
    EXPECT_EQ(pieces[2].size() - head, 500u);
    EXPECT_EQ(pieces[0][tcp + 13], static_cast<char>(0x90)) << "CWR in the first only";
    EXPECT_EQ(pieces[1][tcp + 13], 0x10);
    EXPECT_EQ(pieces[2][tcp + 13], 0x19) << "PSH and FIN in the last only";
    EXPECT_EQ(pieces[1].substr(tcp + 4, 4), std::string("\0\0\2\xe8", 4))
        << "the sequence number wraps";
    if (!v6)
      EXPECT_EQ(pieces[1].substr(18, 2), std::string("\0\0", 2)) << "so does the identification";
  }
}

TEST(Offload, RefusesWhatIsNotASegment) {
  const auto refused = [](std::string frame, OffloadHeader offload) {
    bool any = false;
    const bool done = make_plain(span_of(frame), offload, [&](ByteSpan) { any = true; });
    return !done && !any;
  };
  const OffloadHeader tcp4{.flags = 1, .gso_type = OffloadHeader::kTcp4, .gso_size = 100};
  OffloadHeader other = tcp4;
  EXPECT_TRUE(refused(tcp_frame(true, 500, 0), tcp4));
  other.gso_size = 0;
  EXPECT_TRUE(refused(tcp_frame(false, 500, 0), other));
  other = tcp4;
  other.gso_type = OffloadHeader::kUdp;
  EXPECT_TRUE(refused(tcp_frame(false, 500, 0), other));
  for (const std::size_t size : {0, 13, 33, 53, 57})
    EXPECT_TRUE(refused(tcp_frame(false, 500, 0).substr(0, size), tcp4)) << size;
  std::string frame = tcp_frame(false, 500, 0);
  frame[14] = 0x44;
  EXPECT_TRUE(refused(frame, tcp4));
  frame = tcp_frame(false, 10, 0);
  frame[46] = static_cast<char>(0xf0);  // a header longer than the frame
  EXPECT_TRUE(refused(frame, tcp4));
  EXPECT_TRUE(refused(frame, {.flags = 1, .checksum_start = 60, .checksum_offset = 100}));
}

TEST(Offload, WhatADriverTakes) {
  EXPECT_TRUE(takes({}, {}));
  EXPECT_FALSE(takes({}, {.flags = 1}));
  EXPECT_FALSE(takes({.checksum = true}, {.flags = 1, .gso_type = OffloadHeader::kTcp4}));
  EXPECT_TRUE(
      takes({.checksum = true, .tso4 = true}, {.flags = 1, .gso_type = OffloadHeader::kTcp4}));
  EXPECT_FALSE(takes({.checksum = true, .tso4 = true},
                     {.flags = 1, .gso_type = OffloadHeader::kTcp4 | OffloadHeader::kEcn}));
  EXPECT_FALSE(takes({.checksum = true, .tso4 = true, .tso6 = true, .ufo = true, .ecn = true},
                     {.gso_type = 9}));
}

TEST(Offload, ZeroIsNoChecksum) {
  std::string frame = "\xff\xff" + std::string(2, 0);
  EXPECT_TRUE(
      finish_checksum(span_of(frame), {.flags = 1, .checksum_start = 0, .checksum_offset = 2}));
  EXPECT_EQ(frame, "\xff\xff\xff\xff");
}

}  // namespace
}  // namespace smol::net

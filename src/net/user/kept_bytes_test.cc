#include "net/user/kept_bytes.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

namespace smol::net::user {
namespace {

TEST(KeptBytesTest, BehavesAsAStringDoes) {
  std::mt19937 random(7);
  KeptBytes kept;
  std::string model;
  u8 next = 0;
  for (int turn = 0; turn < 20'000; ++turn) {
    const auto below = [&](std::size_t limit) { return limit == 0 ? 0 : random() % limit; };
    switch (random() % 3) {
      case 0: {
        std::string first(below(3000), 0), second(below(3000), 0);
        for (std::string* const part : {&first, &second})
          for (char& c : *part) c = static_cast<char>(next++);
        const iovec buffers[] = {{first.data(), first.size()}, {second.data(), second.size()}};
        const std::size_t count = below(first.size() + second.size() + 1);
        kept.append(buffers, count);
        model += (first + second).substr(0, count);
        break;
      }
      case 1: {
        const std::size_t count = below(model.size() + 1);
        kept.drop(count);
        model.erase(0, count);
        break;
      }
      default: {
        if (model.empty()) break;
        const std::size_t offset = below(model.size());
        std::string one(below(2000), 'x'), two(below(2000), 'x');
        const iovec buffers[] = {{one.data(), one.size()}, {two.data(), two.size()}};
        const std::size_t got = kept.read(offset, buffers);
        ASSERT_EQ(got, std::min(one.size() + two.size(), model.size() - offset));
        ASSERT_EQ((one + two).substr(0, got), model.substr(offset, got));
      }
    }
    ASSERT_EQ(kept.size(), model.size());
  }
}

TEST(KeptBytesTest, KeepsItsRoomUntilItIsShrunk) {
  KeptBytes kept;
  std::string bytes(300'000, 'b');
  const iovec buffer{bytes.data(), bytes.size()};
  kept.append({&buffer, 1}, bytes.size());
  const std::size_t room = kept.capacity();
  EXPECT_GE(room, bytes.size());
  kept.shrink();  // not while it holds something
  EXPECT_EQ(kept.capacity(), room);
  kept.drop(bytes.size());
  EXPECT_EQ(kept.capacity(), room);
  kept.shrink();
  EXPECT_EQ(kept.capacity(), 0u);
  kept.append({&buffer, 1}, 10);
  kept.drop(10);
  const std::size_t small = kept.capacity();
  kept.shrink();  // a small one stays: a flow of small answers allocates nothing
  EXPECT_EQ(kept.capacity(), small);
}

}  // namespace
}  // namespace smol::net::user

// Indices that only somebody who means harm would write: digests are right, what they cover is not.
#include <gtest/gtest.h>

#include <functional>

#include "image/container/format.h"

namespace smol::image {
namespace {

Section section_of(std::string name, u64 offset, u64 size, SectionKind kind = SectionKind::kRoot) {
  Section section;
  section.kind = kind;
  section.name = std::move(name);
  section.offset = offset;
  section.stored_size = section.data_size = section.size = size;
  section.pieces.resize(piece_count(padded(size)));
  section.digest = digest_of_digests(section.pieces);
  return section;
}

Index good_index() {
  Index index;
  index.sections = {section_of("a", 4096, 5000),
                    section_of("b", 4096 + 8192, 4096, SectionKind::kDisk)};
  index.sections[1].sparse = true;
  index.sections[1].size = kGiB;
  index.sections[1].extents = {{kMiB, 4096}};
  return index;
}
constexpr u64 kEnd = 4096 + 8192 + 4096;

Result<Index> parse(const std::string& bytes, u64 end = kEnd) {
  return parse_index({reinterpret_cast<const u8*>(bytes.data()), bytes.size()}, end);
}

TEST(Index, GoesBothWays) {
  const std::string bytes = write_index(good_index());
  const auto index = parse(bytes);
  ASSERT_TRUE(index) << index.error().chain();
  EXPECT_EQ(write_index(*index), bytes);
}

TEST(Index, RefusesWhatDoesNotFit) {
  const auto refuse = [](const char* word, const std::function<void(Index&)>& change) {
    Index index = good_index();
    change(index);
    const auto parsed = parse(write_index(index));
    ASSERT_FALSE(parsed) << word;
    EXPECT_NE(parsed.error().chain().find(word), std::string::npos) << parsed.error().chain();
  };
  refuse("twice", [](Index& i) { i.sections[1].name = "a"; });
  refuse("begins at", [](Index& i) { i.sections[1].offset = 4096; });             // overlap
  refuse("begins at", [](Index& i) { i.sections[1].offset += 4096; });            // gap
  refuse("begins at", [](Index& i) { i.sections[0].offset = 0; });                // in the header
  refuse("begins at", [](Index& i) { i.sections[1].offset += 1; });               // not aligned
  refuse("reach beyond", [](Index& i) { i.sections[1].stored_size = ~u64{0}; });  // overflows
  refuse("reach beyond", [](Index& i) { i.sections[1].stored_size = ~u64{0} - 8000; });
  refuse("a content of", [](Index& i) { i.sections[1].size = ~u64{0}; });
  refuse("a content of", [](Index& i) { i.sections[1].size = 0; });
  refuse("differ", [](Index& i) { i.sections[0].data_size = 4999; });
  refuse("differ", [](Index& i) { i.sections[1].data_size = 4095; });
  refuse("unknown kind", [](Index& i) { i.sections[0].kind = static_cast<SectionKind>(77); });
  refuse("digests for", [](Index& i) { i.sections[0].pieces.emplace_back(); });
  refuse("pieces' digests", [](Index& i) { i.sections[0].digest[3] ^= 1; });
  refuse("extents, but", [](Index& i) { i.sections[0].extents = {{0, 4096}}; });
  refuse("not in order", [](Index& i) { i.sections[1].extents = {{kGiB, 4096}}; });
  refuse("not in order", [](Index& i) { i.sections[1].extents = {{4096, ~u64{0}}}; });
  refuse("not in order", [](Index& i) { i.sections[1].extents = {{4097, 4096}}; });
  refuse("not in order", [](Index& i) { i.sections[1].extents = {{8192, 4096}, {4096, 4096}}; });
  refuse("not in order", [](Index& i) { i.sections[1].extents = {{8192, 4096}, {8192, 4096}}; });
  refuse("not in order", [](Index& i) { i.sections[1].extents = {{8192, 0}}; });
  refuse("whole pages", [](Index& i) { i.sections[1].extents = {{8192, 100}}; });
  refuse("the extents hold", [](Index& i) { i.sections[1].extents = {{8192, 8192}}; });
  refuse("about a key", [](Index& i) { i.sections[1].encrypted = true; });
  refuse("second configuration",
         [](Index& i) { i.sections[0].kind = i.sections[1].kind = SectionKind::kConfig; });
  refuse("has 1 to", [](Index& i) { i.sections[0].name = "A"; });
  refuse("has 1 to", [](Index& i) { i.sections[0].name = "../x"; });
  refuse("the sections end", [](Index& i) { i.sections.pop_back(); });
  refuse("unknown kind of key",
         [](Index& i) { i.key_source.kind = static_cast<KeySource::Kind>(9); });
  refuse("out of range", [](Index& i) {
    i.key_source = {.kind = KeySource::Kind::kPassphrase, .passes = 3, .memory_bytes = 64 * kGiB};
  });
}

TEST(Index, RefusesChangedFields) {
  const std::string good = write_index(good_index());
  const auto refuse = [&](std::size_t at, char value) {
    std::string bytes = good;
    bytes[at] = value;
    EXPECT_FALSE(parse(bytes)) << at;
  };
  refuse(0, 'X');
  refuse(8, 2);  // version
  refuse(offsetof(IndexHeader, flags), 1);
  refuse(offsetof(IndexHeader, reserved), 1);
  refuse(offsetof(IndexHeader, section_count), 3);  // more than there are
  refuse(offsetof(IndexHeader, section_count) + 3, 0x7f);
  refuse(sizeof(IndexHeader) + offsetof(IndexRecord, flags), 8);
  refuse(sizeof(IndexHeader) + offsetof(IndexRecord, extent_count) + 3, 0x7f);
  refuse(sizeof(IndexHeader) + offsetof(IndexRecord, name_length), 64);
  refuse(sizeof(IndexHeader) + offsetof(IndexRecord, reserved0), 1);
  refuse(sizeof(IndexHeader) + offsetof(IndexRecord, reserved1), 1);
  refuse(sizeof(IndexHeader) + sizeof(IndexRecord) + 7, 1);  // a name's padding
  for (std::size_t size = 0; size < good.size(); ++size)
    EXPECT_FALSE(parse(good.substr(0, size))) << size;
  EXPECT_FALSE(parse(good + "x"));
}

}  // namespace
}  // namespace smol::image

#include "image/container/container.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include <random>

#include "image/container/format.h"
#include "image/container/writer.h"

namespace smol::image {
namespace {

ConstByteSpan span_of(std::string_view text) {
  return {reinterpret_cast<const u8*>(text.data()), text.size()};
}

// Bytes that zstd cannot shrink.
std::string noise(std::size_t size, unsigned seed) {
  std::mt19937_64 random(seed);
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random());
  return bytes;
}

std::string read_all(int fd) {
  struct stat status{};
  EXPECT_EQ(fstat(fd, &status), 0);
  std::string bytes(static_cast<std::size_t>(status.st_size), '\0');
  EXPECT_TRUE(
      base::read_exact_at(fd, {reinterpret_cast<u8*>(bytes.data()), bytes.size()}, 0, "test"));
  return bytes;
}

base::UniqueFd file_of(std::string_view bytes) {
  auto fd = base::create_memfd("test", bytes.size());
  EXPECT_TRUE(fd);
  EXPECT_TRUE(base::write_all_at(fd->get(), span_of(bytes), 0, "test"));
  return std::move(*fd);
}

Result<Container> open_bytes(std::string_view bytes, const VerifyPolicy& policy = {}) {
  return Container::open(file_of(bytes), "x.smolmachine", policy);
}

std::string message_of(const Error& error) { return error.chain(); }

struct Contents {
  std::string config = R"({"version": 1})";
  std::string kernel = std::string(300000, 'k') + noise(5000, 1);
  std::string root = noise(2 * kMiB + 12345, 2);
  std::string disk;  // 3 MiB with two islands
  std::string sbom = "{}";
  Contents() {
    disk.assign(3 * kMiB + 1000, '\0');
    const std::string island = noise(70000, 3);
    disk.replace(kMiB, island.size(), island);
    disk.replace(disk.size() - 10, 10, "0123456789");
  }
};

Result<> add_all(ContainerWriter& writer, const Contents& contents, bool encrypt) {
  const base::UniqueFd root = file_of(contents.root);
  const base::UniqueFd disk = file_of(contents.disk);
  TRY(writer.add_bytes(SectionKind::kConfig, "config", span_of(contents.config), {}));
  TRY(writer.add_bytes(SectionKind::kKernel, "kernel", span_of(contents.kernel),
                       {.zstd_level = 3}));
  TRY(writer.add_file(SectionKind::kRoot, "root", root.get(), 0, contents.root.size(), {}));
  TRY(writer.add_file(SectionKind::kDisk, "disk", disk.get(), 0, contents.disk.size(),
                      {.zstd_level = encrypt ? 1 : 0, .encrypt = encrypt, .sparse = true}));
  return writer.add_bytes(SectionKind::kSbom, "sbom", span_of(contents.sbom), {.encrypt = encrypt});
}

std::string make(const std::string& program = "", const SecretKey* key = nullptr,
                 const NewKey* content_key = nullptr) {
  base::UniqueFd fd = file_of(program);
  WriterOptions options{.created = 1700000000, .key = {}, .key_source = {}};
  if (content_key != nullptr) {
    options.key = content_key->key;
    options.key_source = content_key->source;
  }
  auto writer = ContainerWriter::create(fd.get(), "test", program.size(), options);
  EXPECT_TRUE(writer) << message_of(writer.error());
  const auto added = add_all(*writer, Contents(), content_key != nullptr);
  EXPECT_TRUE(added) << message_of(added.error());
  const auto finished = writer->finish(key, "made by a test");
  EXPECT_TRUE(finished) << message_of(finished.error());
  return read_all(fd.get());
}

void expect_contents(const Container& container) {
  const Contents contents;
  const auto expect = [&](std::string_view name, const std::string& content) {
    const Section* section = container.find(name);
    ASSERT_NE(section, nullptr);
    const auto read = container.read_section(*section, 16 * kMiB);
    ASSERT_TRUE(read) << message_of(read.error());
    EXPECT_TRUE(*read == content) << name;
    auto copy = base::create_memfd("copy", 77);
    ASSERT_TRUE(copy);
    const auto copied = container.copy_section(*section, copy->get(), "copy");
    ASSERT_TRUE(copied) << message_of(copied.error());
    EXPECT_TRUE(read_all(copy->get()) == content) << name;
  };
  expect("config", contents.config);
  expect("kernel", contents.kernel);
  expect("root", contents.root);
  expect("disk", contents.disk);
  expect("sbom", contents.sbom);
}

TEST(Container, HoldsWhatWasPutIn) {
  const std::string bytes = make();
  auto container = open_bytes(bytes);
  ASSERT_TRUE(container) << message_of(container.error());
  EXPECT_EQ(container->sections().size(), 5u);
  EXPECT_EQ(container->created(), 1700000000u);
  EXPECT_EQ(container->base(), 0u);
  EXPECT_FALSE(container->signature().present);
  EXPECT_TRUE(container->verify_all(3));
  expect_contents(*container);
  const Section* disk = container->find(SectionKind::kDisk);
  EXPECT_LT(disk->stored_size, 256 * kKiB);
  EXPECT_EQ(disk->extents.size(), 2u);
  EXPECT_LT(container->find("kernel")->stored_size, 10000u);
  const Section* root = container->find(SectionKind::kRoot);
  EXPECT_EQ(*container->file_offset(*root) % kAlignment, 0u);
  const auto mapping = container->map_section(*root, Container::Check::kNow);
  ASSERT_TRUE(mapping);
  EXPECT_EQ(std::memcmp(mapping->data(), Contents().root.data(), root->size), 0);
  EXPECT_FALSE(container->file_offset(*disk));
  EXPECT_FALSE(container->read_section(*root, 1000));
}

TEST(Container, IsTheSameForTheSameInput) { EXPECT_TRUE(make() == make()); }

TEST(Container, StandsBehindAProgram) {
  const std::string program = noise(3 * kAlignment, 9);
  const std::string bytes = make(program);
  auto container = open_bytes(bytes);
  ASSERT_TRUE(container) << message_of(container.error());
  EXPECT_EQ(container->base(), program.size());
  EXPECT_TRUE(container->verify_all());
  expect_contents(*container);
  // The container alone, or behind another program, is not what was made.
  auto alone = open_bytes(std::string_view(bytes).substr(program.size()));
  ASSERT_FALSE(alone);
  EXPECT_NE(message_of(alone.error()).find("behind a program"), std::string::npos);
}

TEST(Container, EncryptsWithAPassphrase) {
  const auto key = new_passphrase_key("open sesame");
  ASSERT_TRUE(key);
  const std::string bytes = make("", nullptr, &*key);
  auto container = open_bytes(bytes);
  ASSERT_TRUE(container) << message_of(container.error());
  EXPECT_TRUE(container->verify_all());
  EXPECT_TRUE(container->needs_passphrase());
  const auto locked = container->read_section(*container->find("sbom"), 100);
  ASSERT_FALSE(locked);
  EXPECT_NE(message_of(locked.error()).find("passphrase"), std::string::npos);
  const auto wrong = container->unlock_with_passphrase("open sesam");
  ASSERT_FALSE(wrong);
  EXPECT_NE(message_of(wrong.error()).find("wrong passphrase"), std::string::npos);
  ASSERT_TRUE(container->unlock_with_passphrase("open sesame"));
  expect_contents(*container);
  EXPECT_EQ(bytes.find(Contents().disk.substr(kMiB, 64)), std::string::npos);
}

TEST(Container, EncryptsWithAKeyFile) {
  char path[] = "/tmp/smol-key-XXXXXX";
  const base::UniqueFd file(mkstemp(path));
  ASSERT_TRUE(base::write_all(file.get(), span_of(std::string(64, 'a')), path));
  const auto key = read_key_file(path);
  ASSERT_TRUE(key) << message_of(key.error());
  const std::string bytes = make("", nullptr, &*key);
  auto container = open_bytes(bytes);
  ASSERT_TRUE(container);
  EXPECT_FALSE(container->unlock_with_passphrase("x"));
  ASSERT_TRUE(container->unlock_with_key_file(path));
  expect_contents(*container);
  ASSERT_TRUE(base::write_all_at(file.get(), span_of("b"), 0, path));
  const auto wrong = container->unlock_with_key_file(path);
  ASSERT_FALSE(wrong);
  EXPECT_NE(message_of(wrong.error()).find("wrong key"), std::string::npos);
  unlink(path);
}

TEST(Container, IsSigned) {
  const SecretKey key = SecretKey::generate();
  const SecretKey other = SecretKey::generate();
  const std::string bytes = make("", &key);
  auto trusted = open_bytes(
      bytes, {.require_signed = true, .trusted_keys = {other.public_key(), key.public_key()}});
  ASSERT_TRUE(trusted) << message_of(trusted.error());
  EXPECT_TRUE(trusted->signature().trusted);
  EXPECT_EQ(trusted->signature().trusted_comment, "made by a test");
  auto unknown = open_bytes(bytes, {.require_signed = false, .trusted_keys = {other.public_key()}});
  ASSERT_TRUE(unknown);
  EXPECT_TRUE(unknown->signature().present);
  EXPECT_FALSE(unknown->signature().trusted);
  EXPECT_FALSE(open_bytes(bytes, {.require_signed = true, .trusted_keys = {other.public_key()}}));
  const auto unsigned_one =
      open_bytes(make(), {.require_signed = true, .trusted_keys = {key.public_key()}});
  ASSERT_FALSE(unsigned_one);
  EXPECT_NE(message_of(unsigned_one.error()).find("not signed"), std::string::npos);
  // A key that claims the trusted key's id is no help.
  PublicKey impostor = other.public_key();
  impostor.key_id = key.public_key().key_id;
  const auto wrong = open_bytes(bytes, {.require_signed = false, .trusted_keys = {impostor}});
  ASSERT_FALSE(wrong);
  EXPECT_NE(message_of(wrong.error()).find("is wrong"), std::string::npos);
}

TEST(Container, IsSignedLater) {
  char path[] = "/tmp/smol-sign-XXXXXX";
  const base::UniqueFd file(mkstemp(path));
  ASSERT_TRUE(base::write_all(file.get(), span_of(make(std::string(8192, 'p'))), path));
  const SecretKey key = SecretKey::generate();
  for (int i = 0; i < 2; ++i) {  // the second time, it replaces a signature
    const auto signed_now = sign_file(path, path, key, "later");
    ASSERT_TRUE(signed_now) << message_of(signed_now.error());
    auto container =
        Container::open(path, {.require_signed = true, .trusted_keys = {key.public_key()}});
    ASSERT_TRUE(container) << message_of(container.error());
    EXPECT_TRUE(container->verify_all());
    expect_contents(*container);
  }
  EXPECT_FALSE(sign_file(path, path, key, "two\nlines"));
  unlink(path);
}

// Opens and checks everything; the error's text, or nothing.
std::string problem_of(std::string_view bytes, const VerifyPolicy& policy = {}) {
  auto container = open_bytes(bytes, policy);
  if (!container) return message_of(container.error());
  const auto verified = container->verify_all();
  return verified ? "" : message_of(verified.error());
}

TEST(ContainerDamage, EveryRegionIsNamed) {
  const SecretKey key = SecretKey::generate();
  const std::string program = noise(2 * kAlignment, 4);
  const std::string good = make(program, &key);
  ASSERT_EQ(problem_of(good), "");
  auto container = open_bytes(good);
  ASSERT_TRUE(container);
  const auto expect = [&](u64 offset, std::string_view word) {
    std::string bad = good;
    bad[offset] ^= 0x10;
    EXPECT_NE(problem_of(bad).find(word), std::string::npos) << offset << ": " << problem_of(bad);
  };
  const u64 base = container->base();
  expect(0, "the program");
  expect(base - 1, "the program");
  for (u64 at = 0; at < kFrameSize; at += 37) expect(base + at, "header");
  for (const Section& section : container->sections()) {
    const std::string word = fmt::format("section '{}'", section.name);
    const u64 start = base + section.offset;
    expect(start, word);
    expect(start + section.stored_size / 2, word);
    expect(start + section.stored_size - 1, word);
    expect(start + padded(section.stored_size) - 1, word);  // padding, where there is some
  }
  const u64 index = base + container->index_offset();
  for (u64 at = 0; at < padded(container->index_bytes().size()); at += 101)
    expect(index + at, "the index");
  const u64 signature = index + padded(container->index_bytes().size());
  for (u64 at = signature; at < good.size() - kFrameSize; at += 67) expect(at, "the signature");
  for (u64 at = 0; at < kFrameSize; at += 41) expect(good.size() - kFrameSize + at, "trailer");
}

TEST(ContainerDamage, NoByteIsUncovered) {
  // A small one, so that each byte can have its turn.
  base::UniqueFd fd = file_of("");
  auto writer = ContainerWriter::create(fd.get(), "test", 0, {});
  ASSERT_TRUE(writer);
  ASSERT_TRUE(writer->add_bytes(SectionKind::kConfig, "config", span_of("{}"), {}));
  ASSERT_TRUE(writer->finish());
  const std::string good = read_all(fd.get());
  ASSERT_EQ(problem_of(good), "");
  for (std::size_t at = 0; at < good.size(); ++at) {
    std::string bad = good;
    bad[at] ^= 1;
    ASSERT_NE(problem_of(bad), "") << at;
  }
}

TEST(ContainerDamage, CutOrLengthened) {
  const std::string good = make();
  for (const u64 size : {u64{0}, u64{1}, u64{4096}, u64{8191}, u64{8192}, u64{12288},
                         good.size() - 4096, good.size() - 1})
    EXPECT_NE(problem_of(std::string_view(good).substr(0, size)), "") << size;
  EXPECT_NE(problem_of(good + "x"), "");
  EXPECT_NE(problem_of(good + std::string(4096, '\0')), "");
  EXPECT_NE(problem_of(std::string(4096, '\0') + good), "");
  EXPECT_NE(problem_of(good + good), "");
  EXPECT_NE(problem_of(good.substr(0, 4096) + good.substr(8192)), "");
}

TEST(ContainerDamage, LazyChecksCatchIt) {
  std::string bytes = make();
  auto clean = open_bytes(bytes);
  ASSERT_TRUE(clean);
  const Section* root = clean->find("root");
  ASSERT_EQ(root->pieces.size(), 3u);
  bytes[root->offset + kPieceSize + 5] ^= 1;
  auto container = open_bytes(bytes);
  ASSERT_TRUE(container);
  root = container->find("root");
  EXPECT_TRUE(container->map_section(*root, Container::Check::kLater));
  EXPECT_FALSE(container->map_section(*root, Container::Check::kNow));
  EXPECT_TRUE(container->check_range(*root, 0, kPieceSize));
  EXPECT_FALSE(container->check_range(*root, kPieceSize - 1, 2));
  EXPECT_TRUE(container->check_range(*root, 2 * kPieceSize, root->size - 2 * kPieceSize));
  EXPECT_FALSE(container->check_range(*root, 0, root->size + 1));
  EXPECT_FALSE(container->verify_section(*root, 2));
}

std::string frame_of(const std::string& content, int window_log = 0) {
  std::string out(ZSTD_compressBound(content.size()), 0);
  ZSTD_CCtx* const context = ZSTD_createCCtx();
  if (window_log != 0) {  // a stream of unknown length: the window is what its header says
    ZSTD_CCtx_setParameter(context, ZSTD_c_windowLog, window_log);
    ZSTD_CCtx_setParameter(context, ZSTD_c_contentSizeFlag, 0);
  }
  ZSTD_outBuffer to{out.data(), out.size(), 0};
  ZSTD_inBuffer from{content.data(), content.size(), 0};
  if (window_log != 0) ZSTD_compressStream2(context, &to, &from, ZSTD_e_flush);
  ZSTD_compressStream2(context, &to, &from, ZSTD_e_end);
  ZSTD_freeCCtx(context);
  out.resize(to.pos);
  return out;
}

// A container whose one section claims to be these stored bytes, compressed; all digests are right.
std::string with_frame(const std::string& stored, u64 data_size) {
  base::UniqueFd fd = file_of("");
  auto writer = ContainerWriter::create(fd.get(), "test", 0, {});
  EXPECT_TRUE(writer->add_bytes(SectionKind::kKernel, "kernel", span_of(stored), {}));
  EXPECT_TRUE(writer->finish());
  std::string bytes = read_all(fd.get());
  u8* const start = reinterpret_cast<u8*>(bytes.data());
  auto* const header = reinterpret_cast<FrameHeader*>(start);
  u8* const record = start + header->index_offset + 136;  // the first one's
  base::store(record + 4, u32{1});
  base::store(record + 24, data_size);
  base::store(record + 32, data_size);
  auto* const trailer = reinterpret_cast<FrameTrailer*>(start + bytes.size() - kFrameSize);
  header->index_digest = digest_of({start + header->index_offset, padded(header->index_size)});
  header->digest =
      digest_of(base::bytes_of(std::as_const(*header)).first(offsetof(FrameHeader, digest)));
  trailer->header_digest = digest_of(base::bytes_of(std::as_const(*header)));
  trailer->digest =
      digest_of(base::bytes_of(std::as_const(*trailer)).first(offsetof(FrameTrailer, digest)));
  return bytes;
}

TEST(ContainerDamage, CompressedDataThatIsNotOneRightFrame) {
  const std::string content(100'000, 'x'), frame = frame_of(content);
  const auto read = [&](const std::string& stored, u64 data_size) -> std::string {
    const auto container = open_bytes(with_frame(stored, data_size));
    if (!container) return message_of(container.error());
    const auto got = container->read_section(*container->find("kernel"), kMiB);
    return got ? *got : message_of(got.error());
  };
  EXPECT_EQ(read(frame, content.size()), content);
  const auto refuse = [&](const std::string& stored, u64 data_size, std::string_view word) {
    const std::string said = read(stored, data_size).substr(0, 500);
    EXPECT_NE(said.find("section 'kernel'"), std::string::npos) << said;
    EXPECT_NE(said.find(word), std::string::npos) << said;
  };
  refuse(frame, content.size() - 1, "more than the 99999 bytes");
  refuse(frame, content.size() + 1, "holds 100000 of 100001");
  refuse(frame + frame, 2 * content.size(), "behind the end");
  refuse(frame + "x", content.size(), "behind the end");
  refuse(frame.substr(0, frame.size() - 1), content.size(), "cut short");
  refuse(frame.substr(0, 3), content.size(), "cut short");
  refuse("not zstd at all", content.size(), "decompressing it");
  refuse(frame_of(content, 24), content.size(), "window");
  EXPECT_EQ(read(frame_of(content, 23), content.size()), content);
}

TEST(ContainerWriter, RefusesWhatNoReaderWouldTake) {
  base::UniqueFd fd = file_of("");
  EXPECT_FALSE(ContainerWriter::create(fd.get(), "test", 100, {}));
  auto writer = ContainerWriter::create(fd.get(), "test", 0, {});
  ASSERT_TRUE(writer);
  EXPECT_TRUE(writer->add_bytes(SectionKind::kConfig, "config", {}, {}));
  EXPECT_FALSE(writer->add_bytes(SectionKind::kConfig, "config2", {}, {}));
  EXPECT_FALSE(writer->add_bytes(SectionKind::kKernel, "config", {}, {}));
  EXPECT_FALSE(writer->add_bytes(SectionKind::kKernel, "Kernel", {}, {}));
  EXPECT_FALSE(writer->add_bytes(SectionKind::kKernel, "", {}, {}));
  EXPECT_FALSE(writer->add_bytes(SectionKind::kKernel, std::string(64, 'k'), {}, {}));
  EXPECT_FALSE(writer->add_bytes(SectionKind::kKernel, "kernel", {}, {.zstd_level = 20}));
  EXPECT_FALSE(writer->add_bytes(SectionKind::kKernel, "kernel", {}, {.encrypt = true}));
  EXPECT_FALSE(
      writer->add_file(SectionKind::kRoot, "root", fd.get(), 0, kGiB, {}));  // a short source
  EXPECT_TRUE(writer->finish());
  EXPECT_EQ(problem_of(read_all(fd.get())), "");
}

TEST(ContainerWriter, CopiesStoredSections) {
  const auto key = new_passphrase_key("x");
  ASSERT_TRUE(key);
  auto from = open_bytes(make(std::string(4096, 'p'), nullptr, &*key));
  ASSERT_TRUE(from);
  base::UniqueFd fd = file_of("");
  auto writer = ContainerWriter::create(
      fd.get(), "test", 0, {.created = 5, .key = {}, .key_source = from->key_source()});
  ASSERT_TRUE(writer);
  for (const Section& section : from->sections()) {
    const auto added = writer->add_stored(*from, section);
    ASSERT_TRUE(added) << message_of(added.error());
  }
  ASSERT_TRUE(writer->finish());
  auto container = open_bytes(read_all(fd.get()));
  ASSERT_TRUE(container) << message_of(container.error());
  ASSERT_TRUE(container->unlock_with_passphrase("x"));
  expect_contents(*container);
}

}  // namespace
}  // namespace smol::image

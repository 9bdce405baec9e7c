#include "image/tree/layer.h"

#include <gtest/gtest.h>
#include <zlib.h>
#include <zstd.h>

#include "image/tree/tar_builder.h"

namespace smol::image {
namespace {

std::string gzip(const std::string& text) {
  z_stream stream{};
  ::deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
  std::string out(::deflateBound(&stream, text.size()) + 64, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  ::deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  ::deflateEnd(&stream);
  return out;
}

std::string zstd(const std::string& text) {
  std::string out(::ZSTD_compressBound(text.size()), '\0');
  out.resize(::ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 3));
  return out;
}

// The trees after these layers, as text, or the error's.
std::string applied(const std::vector<std::string>& layers, const LayerOptions& options = {}) {
  Tree tree;
  for (const std::string& layer : layers) {
    const auto done = apply_layer(tree, bytes_of_text(layer), options);
    if (!done) return done.error().chain();
  }
  return listing(tree);
}
std::string applied(const TarBuilder& layer) { return applied({layer.end()}); }

TarBuilder sample() {
  TarBuilder tar;
  tar.directory("./")
      .directory("./etc/")
      .file("./etc/hosts", "localhost")
      .symlink("./bin", "usr/bin")
      .file("./usr/bin/sh", "#!");
  return tar;
}
constexpr char kSample[] =
    "/bin -> usr/bin\n/etc/\n/etc/hosts=localhost\n/usr/\n/usr/bin/\n/usr/bin/sh=#!\n";

TEST(Layer, TakesPlainGzipAndZstdAndSeveralMembers) {
  const std::string tar = sample().end();
  EXPECT_EQ(applied({tar}), kSample);
  EXPECT_EQ(applied({gzip(tar)}), kSample);
  EXPECT_EQ(applied({zstd(tar)}), kSample);
  EXPECT_EQ(applied({gzip(tar.substr(0, 700)) + gzip(tar.substr(700)) + std::string(300, '\0')}),
            kSample);
  EXPECT_EQ(applied({zstd(tar.substr(0, 700)) + zstd(tar.substr(700))}), kSample);
  EXPECT_EQ(applied({sample().unfinished()}), kSample);  // no end blocks, as some programs write
}

TEST(Layer, RefusesCutAndDamagedStreams) {
  const std::string tar = sample().end(), packed = gzip(tar), frame = zstd(tar);
  for (const std::size_t at : {1u, 100u, 511u, 513u, 1030u})
    EXPECT_EQ(applied({tar.substr(0, at)}).find("layer archive: the archive ends in the middle"),
              0u)
        << at;
  EXPECT_NE(applied({tar.substr(0, 600)}).find("ends in the middle"), std::string::npos);
  EXPECT_NE(applied({packed.substr(0, packed.size() / 2)}).find("ends in the middle"),
            std::string::npos);
  EXPECT_NE(applied({frame.substr(0, frame.size() / 2)}).find("ends in the middle"),
            std::string::npos);
  EXPECT_NE(applied({packed + "garbage"}).find("gzip"), std::string::npos);
  std::string flipped = packed;
  flipped[flipped.size() - 6] ^= 1;
  EXPECT_NE(applied({flipped}).find("damaged"), std::string::npos);
  std::string wrong = tar;
  wrong[0] ^= 1;
  EXPECT_NE(applied({wrong}).find("checksum"), std::string::npos);
}

TEST(Layer, ChecksTheDigest) {
  const std::string tar = sample().end();
  Tree tree;
  const auto done = apply_layer(tree, bytes_of_text(gzip(tar)));
  ASSERT_TRUE(done);
  EXPECT_EQ(done->bytes, tar.size());
  EXPECT_EQ(done->entries, 5u);
  EXPECT_EQ(applied({gzip(tar)}, {.name = "a", .diff_id = done->diff_id, .limits = {}}), kSample);
  const std::string other = "sha256:" + std::string(64, '0');
  EXPECT_NE(applied({tar}, {.name = "b", .diff_id = other, .limits = {}})
                .find("layer b: its contents have the digest sha256:"),
            std::string::npos);
}

TEST(Layer, WhiteoutsHideLowerLayersOnly) {
  TarBuilder lower, upper, opaque;
  lower.file("a/old", "1")
      .file("a/b/old", "2")
      .file("gone", "3")
      .file("same", "4")
      .directory("empty/");
  upper.file("a/new", "5")
      .file("a/.wh.old", "")
      .file(".wh.gone", "")
      .file("same", "6")
      .file(".wh.same", "")
      .file(".wh.never", "");
  EXPECT_EQ(applied({lower.end(), upper.end()}),
            "/a/\n/a/b/\n/a/b/old=2\n/a/new=5\n/empty/\n/same=6\n");
  // Opaque, after and before the names of its own layer.
  opaque.file("a/b/new", "7")
      .file("a/.wh..wh..opq", "")
      .file("a/last", "8")
      .file("none/.wh..wh..opq", "");
  EXPECT_EQ(applied({lower.end(), opaque.end()}),
            "/a/\n/a/b/\n/a/b/new=7\n/a/last=8\n/empty/\n/gone=3\n/same=4\n");
  EXPECT_EQ(applied({lower.end(), upper.end(), opaque.end()}),
            "/a/\n/a/b/\n/a/b/new=7\n/a/last=8\n/empty/\n/same=6\n");
  TarBuilder aufs;
  aufs.file(".wh..wh.plnk/x", "").file(".wh..wh.aufs", "").directory(".wh..wh.orph/");
  EXPECT_EQ(applied({lower.end(), aufs.end()}).find(".wh..wh.aufs"), std::string::npos);
  EXPECT_EQ(applied({upper.end()}, {.whiteouts = false, .limits = {}}).find("/.wh.gone=\n"), 0u);
}

TEST(Layer, ReplacesKinds) {
  TarBuilder lower, upper;
  lower.directory("d/").file("d/x", "1").file("f", "2").symlink("l", "d").symlink("m", "/d");
  upper.file("d", "now a file")
      .directory("f/")
      .file("f/y", "3")
      .add({.name = "l", .type = '5', .mode = 0700});
  upper.add({.name = "m", .type = '3', .device_major = 1, .device_minor = 3});
  EXPECT_EQ(applied({lower.end(), upper.end()}), "/d=now a file\n/f/\n/f/y=3\n/l/\n/m 1:3\n");
  // A directory over a directory keeps what is in it.
  TarBuilder again;
  again.add({.name = "d/", .type = '5', .mode = 01777});
  Tree tree;
  ASSERT_TRUE(apply_layer(tree, bytes_of_text(lower.end())));
  ASSERT_TRUE(apply_layer(tree, bytes_of_text(again.end())));
  EXPECT_EQ(tree.node(*tree.find("d")).mode, 01777);
  EXPECT_TRUE(tree.find("d/x"));
}

TEST(Layer, LinksHardAcrossLayers) {
  TarBuilder lower, upper, last;
  lower.file("a", "1").symlink("s", "a");
  upper.hard_link("b", "a").hard_link("dir/c", "./b").hard_link("t", "/s");
  last.file("a", "2");
  EXPECT_EQ(applied({lower.end(), upper.end()}),
            "/a=1 x3\n/b=1 x3\n/dir/\n/dir/c=1 x3\n/s -> a x2\n/t -> a x2\n");
  EXPECT_EQ(applied({lower.end(), upper.end(), last.end()}),
            "/a=2\n/b=1 x2\n/dir/\n/dir/c=1 x2\n/s -> a x2\n/t -> a x2\n");
  EXPECT_NE(applied(TarBuilder().hard_link("x", "y").hard_link("y", "x"))
                .find("entry 'x': a hard link to 'y', which is not there"),
            std::string::npos);
  EXPECT_NE(applied(TarBuilder().hard_link("x", "x")).find("itself"), std::string::npos);
  EXPECT_NE(applied(TarBuilder().directory("d").hard_link("x", "d")).find("directory 'd'"),
            std::string::npos);
  EXPECT_NE(applied(TarBuilder().file("d/x", "").hard_link("d", "d/x")).find("which is not there"),
            std::string::npos);
}

TEST(Layer, StaysInsideTheRoot) {
  for (const char* const name : {"../x", "a/../../x", "..", "/../x", "./.."}) {
    EXPECT_NE(applied(TarBuilder().file(name, "")).find("leads out of the root"), std::string::npos)
        << name;
    EXPECT_NE(applied(TarBuilder().hard_link("x", name)).find("leads out of the root"),
              std::string::npos)
        << name;
  }
  EXPECT_EQ(applied(TarBuilder().file("/etc/passwd", "p")), "/etc/\n/etc/passwd=p\n");
  // Links in the way lead where they would in the running root.
  TarBuilder escape;
  escape.symlink("out", "../../..")
      .file("out/tmp/x", "1")
      .symlink("abs", "/etc")
      .file("abs/y", "2")
      .symlink("loop", "loop");
  EXPECT_EQ(applied(escape),
            "/abs -> /etc\n/etc/\n/etc/y=2\n/loop -> loop\n/out -> ../../..\n/tmp/\n/tmp/x=1\n");
  EXPECT_NE(applied(escape.file("loop/z", "")).find("too many symbolic links"), std::string::npos);
  EXPECT_NE(applied(TarBuilder().file("f", "").file("f/x", "")).find("a file lies in the way"),
            std::string::npos);
  EXPECT_NE(applied(TarBuilder().file(".", "")).find("the root is a directory"), std::string::npos);
}

TEST(Layer, ReadsPaxAndLongNames) {
  const std::string long_name = std::string(200, 'd') + "/" + std::string(255, 'n');
  TarBuilder tar;
  tar.add({.name = "short",
           .data = "x",
           .mode = 04755,
           .pax = {{"path", long_name},
                   {"uid", "3000000000"},
                   {"gid", "70000"},
                   {"mtime", "1700000000.123456789"},
                   {"SCHILY.xattr.user.note", std::string("a\0=b\n", 5)},
                   {"SCHILY.xattr.trusted.overlay.opaque", "y"},
                   {"LIBARCHIVE.xattr.user.%41", "aGVsbG8"},
                   {"comment", "nothing"}}});
  tar.add({.name = "././@LongLink", .type = 'L', .data = long_name + "2"}).add({.name = "cut"});
  tar.add({.name = "././@LongLink", .type = 'K', .data = std::string(4095, 't')})
      .symlink("link", "cut");
  Tree tree;
  const std::string bytes = tar.end();
  const auto done = apply_layer(tree, bytes_of_text(bytes));
  EXPECT_FALSE(done);  // 256 bytes are too many for a name
  EXPECT_NE(done.error().chain().find("a name of 256 bytes"), std::string::npos);
  const Node& node = tree.node(tree.find(long_name).value());
  EXPECT_EQ(node.uid, 3'000'000'000u);
  EXPECT_EQ(node.gid, 70000u);
  EXPECT_EQ(node.mode, 04755);
  EXPECT_EQ(node.mtime, (Timestamp{1'700'000'000, 123'456'789}));
  EXPECT_EQ(node.xattrs.size(), 2u);
  EXPECT_EQ(node.xattrs.at("user.note"), std::string("a\0=b\n", 5));
  EXPECT_EQ(node.xattrs.at("user.A"), "hello");
  TarBuilder links;
  links.add({.name = "././@LongLink", .type = 'K', .data = std::string(4095, 't')})
      .symlink("link", "cut");
  links.add({.name = "old", .pax = {{"mtime", "-1.5"}}});
  const std::string more = links.end();
  ASSERT_TRUE(apply_layer(tree, bytes_of_text(more)));
  EXPECT_EQ(tree.node(*tree.find("link")).target.size(), 4095u);
  EXPECT_EQ(tree.node(*tree.find("old")).mtime, (Timestamp{-2, 500'000'000}));
}

TEST(Layer, ReadsSparseFiles) {
  const std::string data = "HEAD" + std::string("TAIL");
  TarBuilder tar;
  tar.add({.name = "v00",
           .data = data,
           .pax = {{"GNU.sparse.size", "20"},
                   {"GNU.sparse.numblocks", "2"},
                   {"GNU.sparse.offset", "0"},
                   {"GNU.sparse.numbytes", "4"},
                   {"GNU.sparse.offset", "10"},
                   {"GNU.sparse.numbytes", "4"}}});
  tar.add(
      {.name = "x/v01",
       .data = data,
       .pax = {
           {"GNU.sparse.name", "v01"}, {"GNU.sparse.size", "20"}, {"GNU.sparse.map", "0,4,10,4"}}});
  std::string map = "2\n0\n4\n10\n4\n";
  map.resize(512);
  tar.add({.name = "x/v10",
           .data = map + data,
           .pax = {{"GNU.sparse.major", "1"},
                   {"GNU.sparse.minor", "0"},
                   {"GNU.sparse.name", "v10"},
                   {"GNU.sparse.realsize", "20"}}});
  std::string old = TarBuilder().add({.name = "vold", .type = 'S', .data = data}).unfinished();
  old.replace(
      386, 48,
      fmt::format("{:011o}{}{:011o}{}{:011o}{}{:011o}{}", 0, '\0', 4, '\0', 10, '\0', 4, '\0'));
  old.replace(483, 11, fmt::format("{:011o}", 20));
  TarBuilder::seal(old);
  tar.raw(old).file("after", "ok");
  const std::string zeros6(6, '\0'), whole = "HEAD" + zeros6 + "TAIL" + zeros6;
  EXPECT_EQ(applied(tar), "/after=ok\n/v00=" + whole + "\n/v01=" + whole + "\n/v10=" + whole +
                              "\n/vold=" + whole + "\n");
  for (const char* const bad :
       {"0,4,2,4", "0,4,18,4", "0,4,10", "0,3,10,4", "a,4,10,4", "0,4,99999999999999999999,4"})
    EXPECT_NE(
        applied(TarBuilder().add({.name = "x",
                                  .data = data,
                                  .pax = {{"GNU.sparse.size", "20"}, {"GNU.sparse.map", bad}}}))
            .find("entry 'x': its map"),
        std::string::npos)
        << bad;
}

TEST(Layer, RefusesWhatIsTooMuch) {
  const LayerOptions few{
      .limits = {
          .entries = 3, .bytes = 64 * kKiB, .extended_header_bytes = 4096, .sparse_segments = 2}};
  TarBuilder many, large, header, huge, devices;
  for (int i = 0; i < 4; ++i) many.directory(std::to_string(i));
  EXPECT_NE(applied({many.end()}, few).find("more than 3 entries"), std::string::npos);
  for (int i = 0; i < 4; ++i) devices.add({.name = std::to_string(i), .type = '3'});
  EXPECT_NE(applied({devices.end()}, few).find("more than 3 entries"), std::string::npos);
  EXPECT_NE(applied({gzip(large.file("x", std::string(100'000, '\0')).end())}, few)
                .find("more than 65536"),
            std::string::npos);
  EXPECT_NE(
      applied({header.add({.name = "x", .pax = {{"comment", std::string(5000, 'c')}}}).end()}, few)
          .find("pax header of"),
      std::string::npos);
  EXPECT_NE(applied({huge.add({.name = "x", .size_field = "77777777777"}).end()}, few)
                .find("entry 'x': its size"),
            std::string::npos);
  EXPECT_NE(applied(TarBuilder().add({.name = "x", .size_field = "7777777777z"}))
                .find("size is no number"),
            std::string::npos);
  EXPECT_NE(applied(TarBuilder().add({.name = "x", .pax = {{"size", "99999999999999999"}}}))
                .find("its size"),
            std::string::npos);
  const std::string sparse_bomb =
      TarBuilder()
          .add({.name = "x", .pax = {{"GNU.sparse.size", "70000"}, {"GNU.sparse.map", "0,0"}}})
          .end();
  EXPECT_NE(applied({sparse_bomb}, few).find("sizes are more than"), std::string::npos);
  EXPECT_NE(applied(TarBuilder().add({.name = "x", .type = 'Z'})).find("type 90 is unknown"),
            std::string::npos);
  EXPECT_NE(applied(TarBuilder().add(
                        {.name = "x", .pax = {{"SCHILY.xattr.user.a", std::string(70'000, 'v')}}}))
                .find("extended attributes"),
            std::string::npos);
  // A directory that is there already, and the root, have the limits of a new one.
  const std::vector<std::pair<std::string, std::string>> much = {
      {"SCHILY.xattr.user.a", std::string(70'000, 'v')}};
  for (const char* const name : {"x", "./"})
    EXPECT_NE(applied(TarBuilder().directory("x").add({.name = name, .type = '5', .pax = much}))
                  .find("extended attributes"),
              std::string::npos)
        << name;
  // What is said once for all entries is bounded, however often it is said.
  TarBuilder global;
  for (int i = 0; i < 40; ++i)
    global.add({.name = "pax",
                .type = 'g',
                .data = TarBuilder::record("GNU.sparse.offset", std::string(3000, '1'))});
  EXPECT_NE(applied(global.file("x", "")).find("too many global pax records"), std::string::npos);
  EXPECT_NE(applied(TarBuilder().add({.name = "x", .type = '3', .device_major = 5000}))
                .find("device number"),
            std::string::npos);
  EXPECT_NE(applied(TarBuilder().add({.name = "x", .type = '2'})).find("target"),
            std::string::npos);
  EXPECT_NE(applied(TarBuilder().file(".wh.", "")).find("whiteout of nothing"), std::string::npos);
  EXPECT_NE(applied(TarBuilder().file("a\nb", "").file("a\nb/c", "")).find("a\\x0ab/c"),
            std::string::npos);
  // Deep paths end at Linux's limit, however they are reached.
  TarBuilder deep;
  std::string path;
  for (int i = 0; i < 80; ++i) path += "/" + std::string(50, 'd');
  deep.add({.name = "x", .type = '5', .pax = {{"path", path}}})
      .add({.name = "y", .type = '2', .link = "y", .pax = {{"linkpath", path}}});
  deep.add({.name = "y/" + std::string(50, 'e') + "/f"});
  EXPECT_NE(applied(deep).find("more than 4095 bytes"), std::string::npos);
}

}  // namespace
}  // namespace smol::image

#include "image/oci/root_archive.h"

#include <unistd.h>

#include <algorithm>

namespace smol::image {
namespace {

constexpr std::size_t kBuffer = 256 * kKiB;

// What `docker save`, podman and skopeo put into archives, and root file systems do not have.
bool is_image_name(std::string_view name) {
  if (name == "oci-layout" || name == "manifest.json") return true;
  if (name.starts_with(kBlobFolder))
    return is_digest("sha256:" + std::string(name.substr(kBlobFolder.size())));
  constexpr std::size_t kHex = 64;
  if (name.size() <= kHex || !is_digest("sha256:" + std::string(name.substr(0, kHex))))
    return false;
  const std::string_view rest = name.substr(kHex);
  return rest == ".tar" || rest == ".json" || rest == "/layer.tar" || rest == "/json" ||
         rest == "/VERSION";
}

enum class Packing { kNone, kGzip, kZstd, kXz };

Result<Packing> packing_of(int fd) {
  u8 head[4] = {};
  if (::pread(fd, head, sizeof head, 0) < 0) return fail_errno("cannot read it");
  constexpr u32 kZstd = 0xfd2fb528, kXz = 0x587a37fd;
  if (head[0] == 0x1f && head[1] == 0x8b) return Packing::kGzip;
  if (base::load<u32>(head) == kZstd) return Packing::kZstd;
  return base::load<u32>(head) == kXz ? Packing::kXz : Packing::kNone;
}

std::string_view media_type_of(Packing packing) {
  if (packing == Packing::kGzip) return media::kOciLayerGzip;
  return packing == Packing::kZstd ? media::kOciLayerZstd : media::kOciLayer;
}

Result<> copy_all(ByteSource& source, BlobWriter& writer) {
  std::vector<u8> buffer(kBuffer);
  for (;;) {
    TRY_ASSIGN(const u64 got, source.read(buffer));
    if (got == 0) return {};
    TRY(writer.append(ConstByteSpan(buffer).first(got)));
  }
}

Result<std::string> add(const ImageStore& store, const std::string& bytes,
                        std::vector<std::string>& added) {
  const std::string digest = sha256_digest(std::string_view(bytes));
  if (!store.has_blob(digest)) added.push_back(digest);
  return store.add_blob(bytes);
}

}  // namespace

Result<ArchiveLook> look_at_archive(std::unique_ptr<ByteSource> source, Look look,
                                    const OnProgress& on_progress, u64 total) {
  TRY_ASSIGN(auto plain, decompressed(std::move(source), "it"));
  TarReader reader(std::move(plain), LayerLimits());
  TarEntry entry;
  bool empty = true;
  for (;;) {
    TRY_ASSIGN(const bool more, reader.next(entry));
    if (!more) break;
    empty = false;
    const bool file = entry.kind == TarEntry::Kind::kNode && entry.node == NodeKind::kFile;
    if (look == Look::kBriefly && file && is_image_name(plain_name(entry.name)))
      return ArchiveLook{.image = true, .diff_id = {}};
    if (on_progress) on_progress({reader.bytes(), std::max(total, reader.bytes()), 0, 0});
  }
  if (empty) return fail("there is nothing in it");
  TRY(reader.drain());
  return ArchiveLook{.image = false, .diff_id = reader.digest()};
}

bool holds_oci_layout(const Contents& contents) {
  return contents.has("index.json") && contents.has("oci-layout");
}

bool holds_saved_images(const Contents& contents) {
  const auto text = contents.text("manifest.json");
  if (!text) return false;
  const std::size_t first = text->find_first_not_of(" \t\r\n");
  return first != std::string::npos && (*text)[first] == '[';
}

Result<std::string> add_root_archive(const ImageStore& store, int fd, const std::string& diff_id,
                                     std::vector<std::string>& added) {
  TRY_ASSIGN(const Packing packing, packing_of(fd));
  TRY_ASSIGN(const u64 size, base::file_size(fd, "it"));
  auto source = range_bytes(fd, 0, size, "it");
  // OCI has no layers in xz.
  if (packing == Packing::kXz) {
    TRY_ASSIGN(source, decompressed(std::move(source), "it"));
  }
  TRY_ASSIGN(BlobWriter writer, store.write_unnamed_blob(kMaxBlob));
  TRY(copy_all(*source, writer));
  Manifest manifest;
  manifest.media_type = std::string(media::kOciManifest);
  Descriptor layer;
  layer.media_type = std::string(media_type_of(packing));
  layer.size = writer.offset();
  TRY_ASSIGN(layer.digest, writer.commit_as_found());
  added.push_back(layer.digest);
  const std::string config = fmt::format(
      R"({{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["{}"]}}}})",
      diff_id);
  TRY_ASSIGN(manifest.config.digest, add(store, config, added));
  manifest.config.media_type = std::string(media::kOciConfig);
  manifest.config.size = config.size();
  manifest.layers.push_back(std::move(layer));
  return to_json(manifest);
}

}  // namespace smol::image

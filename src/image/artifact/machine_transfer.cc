#include "image/artifact/machine_transfer.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include <algorithm>
#include <map>

#include "base/fd.h"
#include "base/new_file.h"
#include "image/artifact/chunk_index.h"
#include "image/artifact/chunker.h"
#include "image/store/sha256.h"

namespace smol::image {

namespace {

constexpr int kLevel = 3;

// The blobs of an artifact, one behind the other in a file without a name.
class ChunkSpool {
 public:
  static Result<ChunkSpool> create(const std::string& folder) {
    ChunkSpool spool;
    TRY_ASSIGN(spool.fd_, base::open_file(folder, O_TMPFILE | O_RDWR, 0600));
    return spool;
  }
  // A chunk's blob; the same chunk twice is stored once.
  Result<ArtifactBlob> add(ConstByteSpan chunk) {
    packed_.resize(ZSTD_compressBound(chunk.size()));
    const std::size_t size =
        ZSTD_compress(packed_.data(), packed_.size(), chunk.data(), chunk.size(), kLevel);
    if (ZSTD_isError(size) != 0) return fail("compressing a chunk: {}", ZSTD_getErrorName(size));
    const ConstByteSpan bytes = ConstByteSpan(packed_).first(size);
    const std::string digest = sha256_digest(bytes);
    auto [known, is_new] = offsets_.try_emplace(digest, end_);
    if (is_new) {
      TRY(base::write_all_at(fd_.get(), bytes, end_, "chunks to be sent"));
      end_ += size;
    }
    ArtifactBlob blob;
    blob.media_type = std::string(kMachineChunkType);
    blob.digest = digest;
    blob.path = fmt::format("/proc/self/fd/{}", fd_.get());
    blob.offset = known->second;
    blob.size = size;
    return blob;
  }

 private:
  base::UniqueFd fd_;
  u64 end_ = 0;
  std::map<std::string, u64> offsets_;
  std::vector<u8> packed_;
};

// What the manifest and the configuration say together.
Result<ChunkIndex> index_of(const FetchedArtifact& artifact) {
  const Manifest& manifest = artifact.manifest;
  if (manifest.config.media_type != kMachineConfigType)
    return fail("{} is no machine file, but {}", artifact.reference, manifest.config.media_type);
  auto index = ChunkIndex::parse(artifact.config);
  if (!index) return wrap(index.error(), "{}: its configuration", artifact.reference);
  if (index->chunks.size() != manifest.layers.size())
    return fail("{}: {} chunks, but {} blobs", artifact.reference, index->chunks.size(),
                manifest.layers.size());
  for (const Descriptor& layer : manifest.layers) {
    if (layer.media_type != kMachineChunkType)
      return fail("{}: a blob that is no chunk, but {}", artifact.reference, layer.media_type);
    if (layer.size > ZSTD_compressBound(kMaxChunk))
      return fail("{}: a chunk of {} bytes", artifact.reference, layer.size);
  }
  return index;
}

// The policy, before anything is fetched.
Result<> check_policy(const ChunkIndex& index, const std::string& reference,
                      const VerifyPolicy& policy) {
  const auto checked = check_signature(index.signature, index.container_index, policy);
  if (!checked) return wrap(checked.error(), "{}", reference);
  return {};
}

Result<> unpack_chunk(const ImageStore& store, const Descriptor& blob, ByteSpan into) {
  TRY_ASSIGN(const std::string packed, store.read_blob(blob.digest, blob.size));
  const std::size_t size = ZSTD_decompress(into.data(), into.size(), packed.data(), packed.size());
  if (ZSTD_isError(size) != 0) return fail("chunk {}: {}", blob.digest, ZSTD_getErrorName(size));
  if (size != into.size())
    return fail("chunk {} has {} bytes, not {}", blob.digest, size, into.size());
  return {};
}

Result<> assemble(const ImageStore& store, const Manifest& manifest, const ChunkIndex& index,
                  const base::NewFile& file) {
  BlobHash hash;
  std::vector<u8> buffer;
  u64 offset = 0;
  for (std::size_t i = 0; i < index.chunks.size(); ++i) {
    buffer.resize(index.chunks[i]);
    TRY(unpack_chunk(store, manifest.layers[i], buffer));
    hash.update(buffer);
    TRY(base::write_all_at(file.fd(), buffer, offset, file.path()));
    offset += buffer.size();
  }
  if (hash.digest() != index.digest)
    return fail("the chunks make a file with digest {}, not {}", hash.digest(), index.digest);
  return {};
}

}  // namespace

Result<PushedMachine> push_machine(const std::string& file, const std::string& reference,
                                   const std::string& scratch_folder, const PushOptions& options) {
  TRY_ASSIGN(const Container container, Container::open(file, {}));
  TRY(container.verify_all());
  TRY_ASSIGN(ChunkSpool spool, ChunkSpool::create(scratch_folder));
  ChunkIndex index;
  index.size = container.base() + container.size();
  index.executable = container.base() != 0;
  index.signature = container.signature().text;
  if (container.signature().present) index.container_index = container.index_bytes();
  Artifact artifact;
  artifact.artifact_type = std::string(kMachineArtifactType);
  artifact.config_media_type = std::string(kMachineConfigType);
  BlobHash hash;
  TRY(cut_chunks(container.fd(), index.size, file, chunk_sizes_for(index.size),
                 [&](ConstByteSpan chunk) -> Result<> {
                   hash.update(chunk);
                   index.chunks.push_back(chunk.size());
                   TRY_ASSIGN(ArtifactBlob blob, spool.add(chunk));
                   artifact.blobs.push_back(std::move(blob));
                   return {};
                 }));
  index.digest = hash.digest();
  artifact.config = index.to_json();
  TRY_ASSIGN(const Pushed pushed, push_artifact(reference, artifact, options));
  return PushedMachine{.reference = pushed.reference,
                       .manifest_digest = pushed.manifest_digest,
                       .file_bytes = index.size,
                       .chunks = index.chunks.size(),
                       .sent_bytes = pushed.sent,
                       .sent_chunks = pushed.blobs_sent};
}

Result<PulledMachine> pull_machine(const ImageStore& store, const std::string& reference,
                                   const std::string& to, const VerifyPolicy& policy,
                                   FetchOptions options) {
  TRY_ASSIGN(const base::UniqueFd lock, store.lock_for_adding());
  options.accept = [&](const FetchedArtifact& artifact) -> Result<> {
    TRY_ASSIGN(const ChunkIndex index, index_of(artifact));
    return check_policy(index, artifact.reference, policy);
  };
  TRY_ASSIGN(const FetchedArtifact artifact, fetch_artifact(store, reference, options));
  TRY_ASSIGN(const ChunkIndex index, index_of(artifact));
  TRY_ASSIGN(base::NewFile file, base::NewFile::create(to, index.executable ? 0777 : 0666));
  if (auto made = assemble(store, artifact.manifest, index, file); !made)
    return wrap(made.error(), "{}", artifact.reference);
  TRY_ASSIGN(const Container container, Container::open(file.path(), policy));
  TRY(container.verify_all());
  if (index.executable != (container.base() != 0) || index.signature != container.signature().text)
    return fail("{}: its configuration is not that of the file in it", artifact.reference);
  TRY(file.keep());
  return PulledMachine{.reference = artifact.reference,
                       .manifest_digest = artifact.manifest_digest,
                       .file_bytes = index.size,
                       .signature = container.signature()};
}

}  // namespace smol::image

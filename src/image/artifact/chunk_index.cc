#include "image/artifact/chunk_index.h"

#include <sodium.h>

#include <nlohmann/json.hpp>

#include "image/artifact/chunker.h"
#include "image/container/digest.h"

namespace smol::image {

namespace {

using nlohmann::json;

std::string encode(std::string_view bytes) {
  std::string text(sodium_base64_ENCODED_LEN(bytes.size(), sodium_base64_VARIANT_ORIGINAL), '\0');
  sodium_bin2base64(text.data(), text.size(), reinterpret_cast<const u8*>(bytes.data()),
                    bytes.size(), sodium_base64_VARIANT_ORIGINAL);
  text.pop_back();
  return text;
}

Result<std::string> decode(const std::string& text) {
  std::string bytes(text.size(), '\0');
  std::size_t size = 0;
  const char* end = nullptr;
  if (sodium_base642bin(reinterpret_cast<u8*>(bytes.data()), bytes.size(), text.data(), text.size(),
                        nullptr, &size, &end, sodium_base64_VARIANT_ORIGINAL) != 0 ||
      end != text.data() + text.size())
    return fail("container_index is not base64");
  bytes.resize(size);
  return bytes;
}

bool is_digest(std::string_view text) {
  return text.size() == 71 && text.starts_with("sha256:") &&
         text.find_first_not_of("0123456789abcdef", 7) == text.npos;
}

Result<> read_member(const std::string& name, const json& value, ChunkIndex& index) {
  const auto text = [&](std::string& into) -> Result<> {
    if (!value.is_string()) return fail("{} is not a string", name);
    into = value.get<std::string>();
    return {};
  };
  if (name == "version") {
    if (value != ChunkIndex::kVersion)
      return fail("version {}; this program knows version {}", value.dump(), ChunkIndex::kVersion);
    return {};
  }
  if (name == "size") {
    if (!value.is_number_unsigned()) return fail("size is not a number");
    index.size = value.get<u64>();
    return {};
  }
  if (name == "executable") {
    if (!value.is_boolean()) return fail("executable is neither true nor false");
    index.executable = value.get<bool>();
    return {};
  }
  if (name == "digest") {
    TRY(text(index.digest));
    return is_digest(index.digest) ? Result<>() : fail("digest is not a SHA-256 digest");
  }
  if (name == "signature") return text(index.signature);
  if (name == "container_index") {
    std::string encoded;
    TRY(text(encoded));
    TRY_ASSIGN(index.container_index, decode(encoded));
    return {};
  }
  if (name != "chunks") return fail("unknown member {}", name);
  if (!value.is_array() || value.size() > ChunkIndex::kMaxChunks)
    return fail("chunks is not an array of at most {}", ChunkIndex::kMaxChunks);
  for (const json& item : value) {
    if (!item.is_number_unsigned() || item.get<u64>() == 0 || item.get<u64>() > kMaxChunk)
      return fail("chunks: {} is not a size from 1 to {}",
                  item.dump(-1, ' ', false, json::error_handler_t::replace), kMaxChunk);
    index.chunks.push_back(item.get<u64>());
  }
  return {};
}

}  // namespace

std::string ChunkIndex::to_json() const {
  init_crypto();
  json value{{"version", kVersion},
             {"size", size},
             {"digest", digest},
             {"executable", executable},
             {"chunks", chunks}};
  if (!signature.empty()) {
    value["signature"] = signature;
    value["container_index"] = encode(container_index);
  }
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

Result<ChunkIndex> ChunkIndex::parse(std::string_view text) {
  init_crypto();
  if (text.size() > kMaxText) return fail("{} bytes are too many", text.size());
  // Depth is bounded before the tree is built: this has arrays of numbers and nothing deeper.
  const auto shallow = [](int depth, json::parse_event_t event, json&) {
    return depth < 3 || (event != json::parse_event_t::array_start &&
                         event != json::parse_event_t::object_start);
  };
  const json value = json::parse(text, shallow, false);
  if (!value.is_object()) return fail("it is not a JSON object");
  ChunkIndex index;
  for (const char* const needed : {"version", "size", "digest", "chunks"})
    if (!value.contains(needed)) return fail("{} is missing", needed);
  for (const auto& [name, member] : value.items()) TRY(read_member(name, member, index));
  u64 sum = 0;
  for (const u64 chunk : index.chunks) sum += chunk;
  if (sum != index.size) return fail("the chunks have {} bytes, the file {}", sum, index.size);
  if (index.signature.empty() != index.container_index.empty())
    return fail("of signature and container_index only one is there");
  return index;
}

}  // namespace smol::image

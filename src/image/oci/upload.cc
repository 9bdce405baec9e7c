// The other direction: blobs and manifests into a registry (OCI distribution-spec v1.1, "Pushing").
#include <algorithm>
#include <charconv>

#include "image/oci/registry.h"

namespace smol::image {
namespace {

constexpr u64 kPiece = 16 * kMiB;  // what a broken connection may cost

Result<fetch::Url> location_of(const fetch::Response& response) {
  const std::string location(response.header("location"));
  if (location.empty()) return fail("the registry does not say where to upload to");
  return fetch::resolve_url(response.url, location);
}

}  // namespace

Result<bool> RegistryClient::has_blob(const std::string& digest) {
  Call call;
  call.what = fmt::format("asking {} for blob {}", session_->endpoint().name, digest);
  call.path = "/blobs/" + digest;
  call.request.method = "HEAD";
  TRY_ASSIGN(const fetch::Response response, send(call));
  if (response.status == 200) return true;
  if (response.status == 404) return false;
  return refusal(call, response);
}

Result<bool> RegistryClient::mount_blob(const std::string& digest, const std::string& from) {
  Call call;
  call.what = fmt::format("taking blob {} from {}", digest, from);
  call.path = "/blobs/uploads/?mount=" + digest + "&from=" + fetch::percent_encode(from);
  call.request.method = "POST";
  call.request.has_body = true;
  TRY_ASSIGN(const fetch::Response response, send(call));
  return response.status ==
         201;  // 202: an upload has begun, which ends unused; others: not allowed
}

Result<fetch::Url> RegistryClient::start_upload() {
  Call call;
  call.what = fmt::format("uploading to {}/{}", session_->endpoint().name, session_->repository());
  call.path = "/blobs/uploads/";
  call.request.method = "POST";
  call.request.has_body = true;
  TRY_ASSIGN(const fetch::Response response, send(call));
  if (response.status != 202) return refusal(call, response);
  return location_of(response);
}

// How much of an upload has arrived.
Result<u64> RegistryClient::upload_status(fetch::Url& location) {
  Call call;
  call.what = "asking for the state of an upload";
  call.request.url = location;
  TRY_ASSIGN(const fetch::Response response, send(call));
  if (response.status != 204) return refusal(call, response);
  TRY_ASSIGN(location, location_of(response));
  std::string_view range = response.header("range");  // "0-99"; "0-0" for nothing, too
  range = range.substr(std::min(range.size(), range.find('-') + 1));
  u64 last = 0;
  if (std::from_chars(range.data(), range.data() + range.size(), last).ec != std::errc())
    return fail("the registry does not say how much has arrived");
  return last == 0 ? 0 : last + 1;
}

Result<> RegistryClient::upload_piece(fetch::Url& location, int fd, u64 offset, u64 size, u64 total,
                                      u64& done, const std::function<void(i64)>& on_bytes) {
  Call call;
  call.what = fmt::format("uploading to {}/{}", session_->endpoint().name, session_->repository());
  call.request.method = "PATCH";
  call.request.url = location;
  call.request.headers.emplace_back("Content-Type", "application/octet-stream");
  call.request.headers.emplace_back("Content-Range", fmt::format("{}-{}", done, done + size - 1));
  call.request.has_body = true;
  call.request.body_fd = fd;
  call.request.body_offset = offset + done;
  call.request.body_size = size;
  call.tries = 1;
  u64 reported = 0;
  call.request.on_sent = [&](u64 sent) {
    on_bytes(static_cast<i64>(sent) - static_cast<i64>(reported));
    reported = sent;
  };
  auto response = send(call);
  if (response && response->status == 202) {
    TRY_ASSIGN(location, location_of(*response));
    done += size;
    return {};
  }
  on_bytes(-static_cast<i64>(reported));
  if (!response) return std::unexpected(response.error());
  return refusal(call, *response);
}

Result<> RegistryClient::put_blob(const std::string& digest, int fd, u64 offset, u64 size,
                                  const std::function<void(i64)>& on_bytes) {
  for (u32 attempt = 1;; ++attempt) {
    i64 reported = 0;
    bool broken = false;
    auto put = put_blob_once(
        digest, fd, offset, size,
        [&](i64 bytes) {
          reported += bytes;
          on_bytes(bytes);
        },
        broken);
    if (put || !broken || attempt >= session_->options().tries) return put;
    on_bytes(-reported);
    TRY(pause(session_->options().first_delay_ms << std::min(attempt, 10u)));
    // Only the answer may have been lost.
    TRY_ASSIGN(const bool there, has_blob(digest));
    if (there) {
      on_bytes(static_cast<i64>(size));
      return {};
    }
  }
}

// broken: the connection ended in the closing request, and an upload from the beginning may help.
Result<> RegistryClient::put_blob_once(const std::string& digest, int fd, u64 offset, u64 size,
                                       const std::function<void(i64)>& on_bytes, bool& broken) {
  TRY_ASSIGN(fetch::Url location, start_upload());
  u64 done = 0;
  u32 failures = 0;
  // The last piece goes with the closing PUT.
  while (size - done > kPiece) {
    auto sent = upload_piece(location, fd, offset, kPiece, size, done, on_bytes);
    if (sent) {
      failures = 0;
      continue;
    }
    if (++failures >= session_->options().tries) return std::unexpected(sent.error());
    TRY(pause(session_->options().first_delay_ms << std::min(failures, 10u)));
    if (auto arrived = upload_status(location); arrived && *arrived <= size) {
      on_bytes(static_cast<i64>(*arrived) - static_cast<i64>(done));
      done = *arrived;
    } else {  // the registry has forgotten it
      TRY_ASSIGN(location, start_upload());
      on_bytes(-static_cast<i64>(done));
      done = 0;
    }
  }
  Call call;
  call.what = fmt::format("uploading blob {} to {}/{}", digest, session_->endpoint().name,
                          session_->repository());
  call.request.method = "PUT";
  call.request.url = location;
  call.request.url.target +=
      (location.target.find('?') == std::string::npos ? "?digest=" : "&digest=") +
      fetch::percent_encode(digest);
  call.request.headers.emplace_back("Content-Type", "application/octet-stream");
  call.request.has_body = true;
  call.request.body_fd = fd;
  call.request.body_offset = offset + done;
  call.request.body_size = size - done;
  call.tries = 1;  // the upload's address is good for one answer
  u64 reported = 0;
  call.prepare = [&](fetch::Request&) -> Result<> {
    on_bytes(-static_cast<i64>(reported));
    reported = 0;
    return {};
  };
  call.request.on_sent = [&](u64 sent) {
    on_bytes(static_cast<i64>(sent) - static_cast<i64>(reported));
    reported = sent;
  };
  auto response = send(call);
  broken = !response;
  if (!response) return std::unexpected(response.error());
  if (response->status != 201) return refusal(call, *response);
  return {};
}

Result<std::string> RegistryClient::put_manifest(const std::string& selector,
                                                 std::string_view bytes,
                                                 std::string_view media_type) {
  Call call;
  call.what = fmt::format("pushing the manifest to {}/{}", session_->endpoint().name,
                          session_->repository());
  call.path = "/manifests/" + selector;
  call.request.method = "PUT";
  call.request.headers.emplace_back("Content-Type", std::string(media_type));
  call.request.has_body = true;
  call.request.body = bytes;
  TRY_ASSIGN(const fetch::Response response, send(call));
  if (response.status / 100 != 2) return refusal(call, response);
  return sha256_digest(bytes);
}

}  // namespace smol::image

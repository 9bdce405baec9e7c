#include "image/oci/registry.h"

#include <time.h>

#include <algorithm>
#include <charconv>

#include "base/time.h"

namespace smol::image {
namespace {

constexpr u64 kMaxErrorBody = 64 * kKiB;
constexpr u64 kSliceMs = 100;
constexpr u64 kMsPerSecond = 1000;

bool helps_to_retry(fetch::Problem problem) {
  return problem == fetch::Problem::kCut || problem == fetch::Problem::kTimeout;
}

std::optional<u64> number_of(std::string_view text) {
  u64 number = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), number);
  if (text.empty() || parsed.ec != std::errc() || parsed.ptr != text.data() + text.size())
    return std::nullopt;
  return number;
}

// Retry-After: seconds, or a date (RFC 9110 section 10.2.3), as ms from now.
std::optional<u64> retry_after_ms(const fetch::Response& response) {
  const std::string text(response.header("retry-after"));
  if (const auto seconds = number_of(text))
    return std::min<u64>(*seconds, 1'000'000) * kMsPerSecond;
  tm parts{};
  if (::strptime(text.c_str(), "%a, %d %b %Y %H:%M:%S GMT", &parts) == nullptr) return std::nullopt;
  const i64 wait = static_cast<i64>(::timegm(&parts)) -
                   static_cast<i64>(base::realtime_ns() / base::kNsPerSecond);
  return static_cast<u64>(std::max<i64>(wait, 0)) * kMsPerSecond;
}

// "bytes 100-199/500" -> 100
std::optional<u64> content_start(const fetch::Response& response) {
  std::string_view text = response.header("content-range");
  if (!text.starts_with("bytes ")) return std::nullopt;
  text.remove_prefix(6);
  return number_of(text.substr(0, text.find('-')));
}

}  // namespace

RegistryClient::RegistryClient(std::shared_ptr<RegistrySession> session)
    : session_(std::move(session)), client_(client_options()) {}

fetch::ClientOptions RegistryClient::client_options() const {
  fetch::ClientOptions options;
  options.tls.ca_file = session_->endpoint().ca_file;
  options.tls.verify = session_->endpoint().verify;
  options.waits = session_->options().waits;
  options.cancel = session_->stop();
  return options;
}

Result<> RegistryClient::pause(u64 ms) {
  const u64 until = base::monotonic_ns() + ms * 1'000'000;
  for (u64 now; (now = base::monotonic_ns()) < until;) {
    if (session_->stop() != nullptr && session_->stop()->load()) return fail("interrupted");
    const u64 left = std::min<u64>((until - now) / 1'000'000 + 1, kSliceMs);
    const timespec time{0, static_cast<long>(left * 1'000'000)};
    ::nanosleep(&time, nullptr);
  }
  return {};
}

std::unexpected<Error> RegistryClient::refusal(const Call& call,
                                               const fetch::Response& response) const {
  const std::string& registry = session_->endpoint().name;
  std::string reason = registry_errors(response.body);
  if (!reason.empty()) reason = ": " + reason;
  const int status = response.status;
  if (status == 401)
    return fail("{}: registry {} does not let us in (401){}", call.what, registry, reason);
  if (status == 403)
    return fail("{}: registry {} denies access (403){}", call.what, registry, reason);
  if (status == 404)
    return fail("{}: registry {} does not have it (404){}", call.what, registry, reason);
  if (status == 429)
    return fail("{}: too many requests for registry {} (429){}", call.what, registry, reason);
  if (status >= 500)
    return fail("{}: registry {} has a problem of its own ({}){}", call.what, registry, status,
                reason);
  return fail("{}: registry {} answers {}{}", call.what, registry, status, reason);
}

// One try. again: another one may help, after delay_ms.
Result<fetch::Response> RegistryClient::send_once(Call& call, bool& again, u64& delay_ms,
                                                  u32 attempt) {
  const RegistryOptions& options = session_->options();
  delay_ms = options.first_delay_ms << std::min(attempt, 10u);
  // Once for a first or a new token, once more to be told why the new one is not good enough.
  u32 authorized = 0;
  for (;;) {
    fetch::Request request = call.request;
    if (!call.path.empty()) {
      request.url = session_->base();
      request.url.target = "/v2/" + session_->repository() + call.path;
    }
    const std::string used = session_->authorization();
    if (!used.empty() && request.url.same_origin(session_->base()))
      request.headers.emplace_back("Authorization", used);
    if (call.prepare) TRY(call.prepare(request));
    auto response = client_.send(request);
    if (!response) {
      const fetch::Problem problem = response.error().problem;
      if (problem == fetch::Problem::kNotTls && session_->endpoint().may_be_plain &&
          request.url.tls && !call.path.empty()) {
        session_->speak_plain();  // perhaps another thread has found it out, too
        continue;
      }
      again = helps_to_retry(problem) ||
              (call.progress && call.progress() > 0 && problem == fetch::Problem::kConnect);
      return wrap(response.error().error, "{}", call.what);
    }
    if (response->status == 401 && authorized < 2) {
      ++authorized;
      std::string challenge;
      for (const auto& [name, value] : response->headers)
        if (name.size() == 16 && ::strcasecmp(name.c_str(), "www-authenticate") == 0)
          challenge += (challenge.empty() ? "" : ", ") + value;
      auto got = session_->authorize(client_, challenge, used);
      if (!got)
        return wrap(got.error(), "{}: registry {} does not let us in (401)", call.what,
                    session_->endpoint().name);
      continue;
    }
    if (response->status != 429 && response->status < 500) return std::move(*response);
    again = true;
    if (const auto wait = retry_after_ms(*response)) delay_ms = std::max<u64>(*wait, 1);
    if (delay_ms > options.longest_delay_ms) {
      again = false;
      const std::string text = refusal(call, *response).error().message();
      return fail("{}; it asks to come again in {} s", text, delay_ms / kMsPerSecond);
    }
    return refusal(call, *response);
  }
}

Result<fetch::Response> RegistryClient::send(Call& call) {
  const u32 tries = call.tries != 0 ? call.tries : session_->options().tries;
  u64 moved = call.progress ? call.progress() : 0;
  for (u32 attempt = 0;; ++attempt) {
    bool again = false;
    u64 delay_ms = 0;
    auto response = send_once(call, again, delay_ms, attempt);
    if (response || !again) return response;
    if (call.progress && call.progress() > moved) {
      moved = call.progress();
      attempt = 0;
    } else if (attempt + 1 >= tries) {
      return fail("{} (tried {} times)", response.error().chain(), attempt + 1);
    }
    TRY(pause(delay_ms));
  }
}

Result<Document> RegistryClient::manifest(const std::string& selector) {
  Call call;
  call.what = fmt::format("image {}/{}{}{}", session_->endpoint().name, session_->repository(),
                          is_digest(selector) ? "@" : ":", selector);
  call.path = "/manifests/" + selector;
  call.request.body_limit = kMaxDocument;
  std::string accepted;  // one header: not everything in between keeps several apart
  for (const std::string_view type :
       {media::kOciIndex, media::kDockerList, media::kOciManifest, media::kDockerManifest})
    accepted += (accepted.empty() ? "" : ", ") + std::string(type);
  call.request.headers.emplace_back("Accept", accepted);
  TRY_ASSIGN(const fetch::Response response, send(call));
  if (response.status != 200) return refusal(call, response);
  Document document{response.body, sha256_digest(std::string_view(response.body)),
                    std::string(response.header("content-type"))};
  const std::string_view declared = response.header("docker-content-digest");
  if (is_digest(selector) && document.digest != selector)
    return fail("{}: the manifest that came has another digest, {}", call.what, document.digest);
  if (is_digest(declared) && declared != document.digest)
    return fail("{}: the manifest that came has the digest {}, the registry says {}", call.what,
                document.digest, declared);
  return document;
}

Result<> RegistryClient::blob(BlobWriter& writer, const std::string& digest, u64 size,
                              const std::function<void(i64)>& on_bytes) {
  Call call;
  call.what =
      fmt::format("blob {} of {}/{}", digest, session_->endpoint().name, session_->repository());
  call.path = "/blobs/" + digest;
  call.request.body_limit = kMaxErrorBody;
  const u64 found = writer.offset();
  u64 asked_from = 0;
  const auto restart = [&]() -> Result<> {
    on_bytes(-static_cast<i64>(writer.offset()));
    return writer.restart();
  };
  call.prepare = [&](fetch::Request& request) -> Result<> {
    if (writer.offset() >= size && size > 0) TRY(restart());  // wrong bytes: all anew
    asked_from = writer.offset();
    if (asked_from > 0) request.headers.emplace_back("Range", fmt::format("bytes={}-", asked_from));
    return {};
  };
  call.progress = [&] { return writer.offset(); };
  call.request.on_header = [&](const fetch::Response& response) -> Result<> {
    if (response.status == 206) {
      if (content_start(response) != asked_from)
        return fail("the server sends another part than it was asked for");
    } else if (asked_from > 0) {
      return restart();
    }
    return {};
  };
  call.request.sink = [&](ConstByteSpan bytes) -> Result<> {
    TRY(writer.append(bytes));
    on_bytes(static_cast<i64>(bytes.size()));
    return {};
  };
  for (bool second = false;; second = true) {
    if (writer.offset() < size || size == 0) {
      TRY_ASSIGN(const fetch::Response response, send(call));
      if (response.status == 416 && !second) {  // what is here is no part of what is there
        TRY(restart());
        continue;
      }
      if (response.status != 200 && response.status != 206) return refusal(call, response);
    }
    const u64 before = writer.offset();
    auto committed = writer.commit();
    if (committed) return {};
    // Bytes of an earlier download may have been damaged: once more from the beginning.
    if (writer.offset() == 0) on_bytes(-static_cast<i64>(before));
    if (second || found == 0 || writer.offset() != 0)
      return wrap(committed.error(), "{}", call.what);
  }
}

}  // namespace smol::image

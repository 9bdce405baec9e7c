// One registry, or a mirror of it, for one repository: the HTTP API of OCI distribution-spec v1.1
// (Docker Registry HTTP API V2). Requests are authorized, tried again where that helps, and
// resumed.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "fetch/client.h"
#include "image/oci/oci.h"

namespace smol::image {

// Where requests go.
struct Endpoint {
  std::string name;           // for messages: "localhost:5000"
  fetch::Url base;            // scheme, host and port
  std::string prefix;         // of paths: "" or "/team"
  bool may_be_plain = false;  // plain HTTP where no TLS is spoken
  bool verify = true;
  std::string ca_file;
};
// Mirrors first, the registry itself last.
Result<std::vector<Endpoint>> endpoints_of(const Reference& reference,
                                           const RegistryOptions& options);

// What the clients of one repository share. Thread safe.
class RegistrySession {
 public:
  // actions: "pull", "pull,push".
  RegistrySession(Endpoint endpoint, const Reference& reference, std::string actions,
                  const RegistryOptions& options, const std::atomic<bool>* stop);

  const Endpoint& endpoint() const { return endpoint_; }
  const std::string& repository() const { return repository_; }
  const RegistryOptions& options() const { return options_; }
  const std::atomic<bool>* stop() const { return stop_; }
  std::string scope() const { return "repository:" + repository_ + ":" + actions_; }

  // What another session of the same repository has found out.
  void inherit(const RegistrySession& other);

  fetch::Url base() const;
  void speak_plain();
  std::string authorization() const;
  // After a 401 to a request that had `used` as Authorization: gets what the challenge asks for. An
  // Error says why there is nothing to offer.
  Result<> authorize(fetch::Client& client, const std::string& challenge, const std::string& used);
  void also_scope(std::string scope) { more_scopes_.push_back(std::move(scope)); }

 private:
  Result<std::string> get_token(fetch::Client& client,
                                const std::map<std::string, std::string>& parameters);
  Result<> load_credentials();

  const Endpoint endpoint_;
  const std::string registry_, repository_, actions_;
  const RegistryOptions& options_;
  const std::atomic<bool>* const stop_;
  std::vector<std::string> more_scopes_;
  mutable std::mutex mutex_;  // guards all below
  bool plain_ = false;
  std::string authorization_;
  bool credentials_loaded_ = false;
  std::optional<Credentials> credentials_;
};

struct Document {
  std::string bytes, digest, content_type;
};

// One thread's connection.
class RegistryClient {
 public:
  explicit RegistryClient(std::shared_ptr<RegistrySession> session);

  // selector: tag or digest; a digest is checked.
  Result<Document> manifest(const std::string& selector);
  // The rest of a blob, into the writer, and its commit. on_bytes: how many more have come
  // (negative: start again).
  Result<> blob(BlobWriter& writer, const std::string& digest, u64 size,
                const std::function<void(i64)>& on_bytes);
  Result<bool> has_blob(const std::string& digest);
  // false: cannot be mounted.
  Result<bool> mount_blob(const std::string& digest, const std::string& from);
  // Bytes of a file, in pieces that are resumed where a connection breaks.
  Result<> put_blob(const std::string& digest, int fd, u64 offset, u64 size,
                    const std::function<void(i64)>& on_bytes);
  Result<std::string> put_manifest(const std::string& selector, std::string_view bytes,
                                   std::string_view media_type);

 private:
  struct Call {
    fetch::Request request;
    std::string path;  // below the endpoint; "": request.url as it is
    std::string what;  // "pulling the manifest ..."
    std::function<Result<>(fetch::Request&)> prepare;  // before each try
    std::function<u64()> progress;                     // a try that moved this on is not counted
    u32 tries = 0;                                     // 0: the session's
  };
  Result<fetch::Response> send(Call& call);
  Result<fetch::Response> send_once(Call& call, bool& again, u64& delay_ms, u32 attempt);
  Result<> pause(u64 ms);
  std::unexpected<Error> refusal(const Call& call, const fetch::Response& response) const;
  fetch::ClientOptions client_options() const;
  Result<> put_blob_once(const std::string& digest, int fd, u64 offset, u64 size,
                         const std::function<void(i64)>& on_bytes, bool& broken);
  Result<fetch::Url> start_upload();
  Result<> upload_piece(fetch::Url& location, int fd, u64 offset, u64 size, u64 total, u64& done,
                        const std::function<void(i64)>& on_bytes);
  Result<u64> upload_status(fetch::Url& location);

  std::shared_ptr<RegistrySession> session_;
  fetch::Client client_;
};

}  // namespace smol::image

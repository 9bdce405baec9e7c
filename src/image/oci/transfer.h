// Blobs between a registry and this host, several at once.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "image/oci/registry.h"

namespace smol::image {

// Counts bytes for the caller's callback; any thread.
class ProgressCounter {
 public:
  ProgressCounter(OnProgress callback, u64 total, std::size_t blobs)
      : callback_(std::move(callback)), now_{0, total, 0, blobs} {}
  void add(i64 bytes);
  void blob_done();

 private:
  std::mutex mutex_;
  OnProgress callback_;
  TransferProgress now_;
};

// Calls work(client, index) for 0..count-1 on up to three threads, each with its client. The first
// Error ends all. cancel: the caller's; stop: what the session's clients look at.
Result<> on_several_threads(const std::shared_ptr<RegistrySession>& session, std::size_t count,
                            const std::atomic<bool>* cancel, std::atomic<bool>& stop,
                            const std::function<Result<>(RegistryClient&, std::size_t)>& work);

// What of these the store does not have, from the registry; room on the disk is looked at first.
Result<> fetch_blobs(const ImageStore& store, const std::shared_ptr<RegistrySession>& session,
                     std::vector<Descriptor> blobs, const std::atomic<bool>* cancel,
                     std::atomic<bool>& stop, const OnProgress& on_progress);
// Fails where the store's file system has no room for so many bytes.
Result<> check_room(const ImageStore& store, u64 bytes);

}  // namespace smol::image

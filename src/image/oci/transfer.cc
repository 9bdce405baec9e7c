#include "image/oci/transfer.h"

#include <sys/statvfs.h>

#include <algorithm>
#include <condition_variable>
#include <set>
#include <thread>

namespace smol::image {
namespace {

constexpr std::size_t kThreads = 3;
constexpr std::chrono::milliseconds kSlice{100};

}  // namespace

void ProgressCounter::add(i64 bytes) {
  const std::lock_guard lock(mutex_);
  now_.done = static_cast<u64>(std::max<i64>(0, static_cast<i64>(now_.done) + bytes));
  if (callback_) callback_(now_);
}

void ProgressCounter::blob_done() {
  const std::lock_guard lock(mutex_);
  ++now_.blobs_done;
  if (callback_) callback_(now_);
}

Result<> on_several_threads(const std::shared_ptr<RegistrySession>& session, std::size_t count,
                            const std::atomic<bool>* cancel, std::atomic<bool>& stop,
                            const std::function<Result<>(RegistryClient&, std::size_t)>& work) {
  std::mutex mutex;
  std::condition_variable changed;
  std::optional<Error> first_error;
  std::size_t next = 0;
  const std::size_t workers = std::min(kThreads, count);
  std::size_t running = workers;
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < workers; ++i)
    threads.emplace_back([&] {
      RegistryClient client(session);
      for (;;) {
        std::size_t mine;
        {
          const std::lock_guard lock(mutex);
          if (first_error || stop || next == count) break;
          mine = next++;
        }
        if (auto done = work(client, mine); !done) {
          const std::lock_guard lock(mutex);
          if (!first_error) first_error = done.error();
          stop = true;
        }
      }
      const std::lock_guard lock(mutex);
      --running;
      changed.notify_all();
    });
  {
    std::unique_lock lock(mutex);
    while (running > 0) {
      changed.wait_for(lock, kSlice);
      if (cancel != nullptr && cancel->load()) stop = true;
    }
  }
  for (std::thread& thread : threads) thread.join();
  if (cancel != nullptr && cancel->load()) return fail("interrupted");
  if (first_error) return std::unexpected(std::move(*first_error));
  return {};
}

Result<> check_room(const ImageStore& store, u64 bytes) {
  struct statvfs status{};
  if (::statvfs(store.folder().c_str(), &status) != 0)
    return fail_errno("cannot look at {}", store.folder());
  const u64 room = static_cast<u64>(status.f_bavail) * status.f_frsize;
  if (bytes > room)
    return fail("no space: {} MiB are to come, {} has {} MiB", bytes / kMiB + 1, store.folder(),
                room / kMiB);
  return {};
}

Result<> fetch_blobs(const ImageStore& store, const std::shared_ptr<RegistrySession>& session,
                     std::vector<Descriptor> blobs, const std::atomic<bool>* cancel,
                     std::atomic<bool>& stop, const OnProgress& on_progress) {
  std::set<std::string> seen;
  std::erase_if(blobs, [&](const Descriptor& blob) { return !seen.insert(blob.digest).second; });
  u64 total = 0, missing = 0;
  for (const Descriptor& blob : blobs) {
    total += blob.size;
    if (!store.has_blob(blob.digest)) missing += blob.size;
  }
  TRY(check_room(store, missing));
  ProgressCounter progress(on_progress, total, blobs.size());
  // Large ones first, so that the last thread does not end alone with one.
  std::ranges::sort(blobs, std::ranges::greater(), &Descriptor::size);
  return on_several_threads(session, blobs.size(), cancel, stop,
                            [&](RegistryClient& client, std::size_t index) -> Result<> {
                              const Descriptor& blob = blobs[index];
                              TRY_ASSIGN(std::optional<BlobWriter> writer,
                                         store.write_blob(blob.digest, blob.size));
                              if (!writer) {
                                progress.add(static_cast<i64>(blob.size));
                              } else {
                                progress.add(static_cast<i64>(writer->offset()));
                                TRY(client.blob(*writer, blob.digest, blob.size,
                                                [&](i64 bytes) { progress.add(bytes); }));
                              }
                              progress.blob_done();
                              return {};
                            });
}

}  // namespace smol::image

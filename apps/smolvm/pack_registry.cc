// Machine files and capsules in registries: push, pull.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli.h"
#include "image/artifact/machine_transfer.h"
#include "images.h"
#include "pack.h"
#include "progress.h"

namespace smolvm {
namespace {

using namespace smol;
using nlohmann::json;

void print(const json& document) {
  fmt::print("{}\n", document.dump(2, ' ', false, json::error_handler_t::replace));
}

}  // namespace

Result<int> run_pack_push(const Invocation& invocation) {
  const std::string& reference = invocation.words[0];
  const std::string file = invocation.text("file");
  if (file.empty()) return fail("which file? Name it with --file");
  image::PushOptions options;
  TRY_ASSIGN(options.registry, image::RegistryOptions::of_host());
  TRY_ASSIGN(const image::ImageStore store, open_images());
  const auto pushed = [&] {
    Progress progress(fmt::format("Pushing {}", file));
    options.on_progress = [&](const image::TransferProgress& now) {
      progress.detail(transfer_text(now, "chunks"));
    };
    return image::push_machine(file, reference, store.scratch_folder(), options);
  }();
  if (!pushed) return std::unexpected(pushed.error());
  if (invocation.has("json"))
    print({{"reference", pushed->reference},
           {"manifest", pushed->manifest_digest},
           {"bytes", pushed->file_bytes},
           {"chunks", pushed->chunks},
           {"sent_bytes", pushed->sent_bytes},
           {"sent_chunks", pushed->sent_chunks}});
  else
    fmt::print("{}@{}\n{:.1f} MB in {} chunks; sent {:.1f} MB in {}\n", pushed->reference,
               pushed->manifest_digest, static_cast<double>(pushed->file_bytes) / kMegabyte,
               pushed->chunks, static_cast<double>(pushed->sent_bytes) / kMegabyte,
               pushed->sent_chunks);
  return 0;
}

Result<int> run_pack_pull(const Invocation& invocation) {
  const std::string& name = invocation.words[0];
  TRY_ASSIGN(const image::VerifyPolicy policy, pack_policy(invocation));
  TRY_ASSIGN(const image::Reference reference, image::parse_reference(name));
  const std::string last = reference.repository.substr(reference.repository.rfind('/') + 1);
  const std::string to = invocation.text("output", last + ".smolmachine");
  image::FetchOptions options;
  TRY_ASSIGN(options.registry, image::RegistryOptions::of_host());
  TRY_ASSIGN(const image::ImageStore store, open_images());
  const auto pulled = [&] {
    Progress progress(fmt::format("Pulling {}", name));
    options.on_progress = [&](const image::TransferProgress& now) {
      progress.detail(transfer_text(now, "chunks"));
    };
    return image::pull_machine(store, name, to, policy, options);
  }();
  if (!pulled) return std::unexpected(pulled.error());
  const image::SignatureState& signature = pulled->signature;
  if (invocation.has("json"))
    print({{"reference", pulled->reference},
           {"manifest", pulled->manifest_digest},
           {"bytes", pulled->file_bytes},
           {"file", to},
           {"signed", signature.present},
           {"trusted", signature.trusted}});
  else
    fmt::print("{}@{}\n{}: {:.1f} MB, {}\n", pulled->reference, pulled->manifest_digest, to,
               static_cast<double>(pulled->file_bytes) / kMegabyte,
               !signature.present  ? "not signed"
               : signature.trusted ? "signed by key " + image::key_id_text(signature.key_id)
                                   : "signed by a key that is not known here");
  return 0;
}

}  // namespace smolvm

// Machine files and capsules: what is in them, and whether it is what it was. The user's settings.
#include <cstdio>
#include <thread>

#include "cli.h"
#include "config/settings.h"
#include "image/container/container.h"
#include "image/container/describe.h"
#include "image/sbom/sbom.h"
#include "pack.h"

namespace smolvm {

using namespace smol;

Result<image::VerifyPolicy> pack_policy(const Invocation& invocation) {
  if (!invocation.has("key")) return config::user_verify_policy();
  image::VerifyPolicy policy{.require_signed = true, .trusted_keys = {}};
  for (const std::string& item : invocation.list("key")) {
    auto key = image::PublicKey::parse(item);
    if (!key) {
      auto text = base::read_text_file(item);
      if (!text)
        return wrap(text.error(), "--key {}: neither a public key nor a file with one", item);
      key = image::PublicKey::parse(*text);
    }
    if (!key) return wrap(key.error(), "{}", item);
    policy.trusted_keys.push_back(*key);
  }
  return policy;
}

Result<int> run_pack_inspect(const Invocation& invocation) {
  // Inspecting uses nothing: what the policy would refuse is shown, too.
  TRY_ASSIGN(image::VerifyPolicy policy, pack_policy(invocation));
  policy.require_signed = false;
  TRY_ASSIGN(const image::Container container, image::Container::open(invocation.words[0], policy));
  if (invocation.has("export-index")) {
    const std::string path = invocation.text("export-index");
    TRY(write_new_file(path, container.index_bytes(), 0666));
    if (container.signature().present)
      TRY(write_new_file(path + ".minisig", container.signature().text, 0666));
  }
  TRY_ASSIGN(const std::string text,
             invocation.has("json") ? image::describe_json(container) : image::describe(container));
  std::fputs(text.c_str(), stdout);
  return 0;
}

Result<int> run_pack_verify(const Invocation& invocation) {
  TRY_ASSIGN(const image::VerifyPolicy policy, pack_policy(invocation));
  TRY_ASSIGN(const image::Container container, image::Container::open(invocation.words[0], policy));
  TRY(container.verify_all(std::max(1u, std::thread::hardware_concurrency())));
  u64 bytes = container.base();
  for (const image::Section& section : container.sections()) bytes += section.stored_size;
  const image::SignatureState& signature = container.signature();
  std::printf("%s: %zu sections, %llu bytes: all as they were written\n", container.name().c_str(),
              container.sections().size(), static_cast<unsigned long long>(bytes));
  if (!signature.present)
    std::printf("Not signed\n");
  else
    std::printf(
        "Signed by key %s: %s\nTrusted comment: %s\n", image::key_id_text(signature.key_id).c_str(),
        signature.trusted ? "right"
                          : "not checked, the key is not known here (--key, or trusted-keys)",
        signature.trusted_comment.c_str());
  return 0;
}

Result<int> run_pack_sbom(const Invocation& invocation) {
  TRY_ASSIGN(const image::VerifyPolicy policy, pack_policy(invocation));
  TRY_ASSIGN(const image::Container container, image::Container::open(invocation.words[0], policy));
  TRY_ASSIGN(const std::string text, image::sbom_of(container, SMOL_VERSION));
  std::fputs(text.c_str(), stdout);
  return 0;
}

Result<int> run_config_show(const Invocation& invocation) {
  TRY_ASSIGN(const config::Settings settings, config::load_settings());
  TRY_ASSIGN(const std::string path, config::settings_path());
  if (invocation.has("json"))
    std::fputs(config::to_json(settings).c_str(), stdout);
  else
    std::printf("# %s\n%s", path.c_str(), config::to_toml(settings).c_str());
  return 0;
}

}  // namespace smolvm

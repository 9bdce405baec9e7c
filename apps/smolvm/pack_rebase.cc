// `pack rebase`: who patches the kernel in a packed machine? This does.
#include "default_image.h"
#include "image/capsule/pack.h"
#include "pack.h"
#include "pack_base.h"

namespace smolvm {

using namespace smol;

Result<int> run_pack_rebase(const Invocation& invocation) {
  const std::string& path = invocation.words[0];
  TRY_ASSIGN(const auto policy, pack_policy(invocation));
  TRY_ASSIGN(const auto packed, image::Container::open(path, policy));
  const image::Section* const section = packed.find(image::SectionKind::kConfig);
  if (section == nullptr) return fail("{} has no section 'config'", path);
  TRY_ASSIGN(const std::string text, packed.read_section(*section, image::PackedConfig::kMaxText));
  TRY_ASSIGN(const auto config, image::PackedConfig::parse(text));
  // The kind that it had: programs may need what only that kernel has.
  std::string asked = invocation.text("kernel");
  if (const auto kind = config.extra.find(image::kExtraKernel);
      asked.empty() && kind != config.extra.end())
    asked = kind->second;
  if (asked == "other")
    return fail("{} has a kernel of its own choice: --kernel FILE says which replaces it", path);
  TRY_ASSIGN(const PackKernel kernel, choose_kernel(asked, config.cpus));
  image::NewBase base{.program = {},
                      .kernel = kernel.path,
                      .kernel_kind = kernel.kind,
                      .initramfs = init_image(),
                      .cache = packs_folder().value_or("")};
  TRY_ASSIGN(base.program, find_runtime());
  TRY_ASSIGN(const auto key, signing_key(invocation));
  // Before the file names them.
  if (packed.find(image::SectionKind::kKernel) == nullptr)
    TRY(share_base(kernel.path, init_image()));
  TRY_ASSIGN(const auto report, image::rebase_pack(path, base, policy, key ? &*key : nullptr));
  fmt::print("Rebased: {}\n", path);
  for (const auto& change : report.changes)
    fmt::print("  {}: {}\n", change.part,
               change.before == change.after
                   ? fmt::format("{} as before", change.before)
                   : fmt::format("{} -> {}", change.before, change.after));
  if (report.was_signed && !key)
    fmt::print(stderr,
               "{} was signed and is not any more: sign it again (--sign-key, or pack sign)\n",
               path);
  return 0;
}

}  // namespace smolvm

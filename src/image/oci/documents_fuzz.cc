// Everything of an image that comes as text from others: names, manifests, indexes, configurations,
// docker save's list, registries' errors and challenges, rules for registries.
#include "image/oci/challenge.h"
#include "image/oci/documents.h"
#include "image/oci/reference.h"
#include "image/oci/registries.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size);
int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace smol::image;
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 8) {
    case 0:
      if (auto reference = parse_reference(text)) {
        // What was understood is understood again, as the same.
        auto again = parse_reference(reference->canonical());
        if (!again || again->canonical() != reference->canonical()) __builtin_trap();
      }
      break;
    case 1:
      if (auto manifest = parse_manifest(text)) {
        auto again = parse_manifest(to_json(*manifest));
        if (!again || again->layers.size() != manifest->layers.size()) __builtin_trap();
      }
      break;
    case 2:
      if (auto index = parse_index(text)) (void)choose(*index, Platform());
      break;
    case 3:
      (void)parse_config(text);
      break;
    case 4:
      (void)parse_saved(text);
      (void)kind_of_document(text, "");
      break;
    case 5:
      (void)parse_challenges(text);
      break;
    case 6:
      (void)registry_errors(text);
      (void)parse_platform(text);
      break;
    default:
      (void)parse_registries(text, "registries.toml");
  }
  return 0;
}

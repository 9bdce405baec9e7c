// What a container is, for people and for programs: `smolvm pack inspect`.
#pragma once

#include <string>

#include "image/container/container.h"

namespace smol::image {

// Sections, sizes, digests, signature; the configuration, if there is one and it is not encrypted.
Result<std::string> describe(const Container& container);
// The same as a JSON object; docs/formats/smolmachine.md, "Inspecting".
Result<std::string> describe_json(const Container& container);

}  // namespace smol::image

// What json.cc needs of json_config.cc, which has the descriptions of all configuration structures.
#pragma once

#include "api/json_archive.h"
#include "api/vm_config.h"

namespace smol::api {

// Instantiated for VmConfig and the structures that add-* calls take.
template <class T>
Result<T> parse_config(std::string_view text, std::string_view what);
void read_config(Reader& reader, const Json& json, VmConfig& out);

}  // namespace smol::api

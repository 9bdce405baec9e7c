// What rpm's database says is installed: the table `Packages` of an SQLite file (rpm 4.16 and
// later, lib/backend/sqlite.c), one header a row. A header is `il` index entries of 16 bytes and
// `dl` bytes of data behind two 32-bit lengths, all big-endian (rpm's docs/manual/hregions.md,
// format_header.md). Databases are hostile: SQLite reads a copy in memory, with a schema that it
// does not trust and a bound on its work; headers are read here, every offset checked.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "image/sbom/packages.h"

namespace smol::image {

// `database`: the whole file. distribution: os-release's ID. Headers that make no sense are left
// out; an Error is a file that is no such database.
Result<std::vector<Package>> parse_rpm(std::string database, std::string_view distribution,
                                       std::string_view found_in);

// One header; nothing when it has no name or version, or is damaged.
std::optional<Package> parse_rpm_header(ConstByteSpan header, std::string_view distribution,
                                        std::string_view found_in);

// Percent-encoding of a purl's parts (package-url, "Character encoding").
std::string purl_escape(std::string_view text);

}  // namespace smol::image

// What is installed in a root file system, by its own records: dpkg's status, apk's installed
// database, rpm's SQLite database, and the build information in Go programs. Older forms of rpm's
// database are seen, but not read; a note says so.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "image/tree/tree.h"

namespace smol::image {

struct Package {
  std::string name, version;
  std::string purl;      // "pkg:deb/debian/bash@5.2-1?arch=amd64"
  std::string license;   // as the record says; may be empty or no SPDX expression
  std::string found_in;  // the record, or the program
  auto operator<=>(const Package&) const = default;
};

struct FoundPackages {
  std::string distribution, distribution_version;  // os-release's ID and VERSION_ID
  std::vector<Package> packages;                   // sorted; each once
  std::vector<std::string> notes;                  // what could not be read
};

// A record that is damaged is read as far as it makes sense.
Result<FoundPackages> find_packages(const Tree& root);

// The parsers, for tests and the fuzzer. distribution: os-release's ID.
std::vector<Package> parse_dpkg(std::string_view text, std::string_view distribution,
                                std::string_view found_in);
std::vector<Package> parse_apk(std::string_view text, std::string_view distribution,
                               std::string_view found_in);
// `info`: a Go program's section .go.buildinfo (Go 1.18 or later, debug/buildinfo "inline" form).
std::vector<Package> parse_go(ConstByteSpan info, std::string_view found_in);

}  // namespace smol::image

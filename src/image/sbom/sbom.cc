#include "image/sbom/sbom.h"

#include <ctime>
#include <nlohmann/json.hpp>

#include "image/container/config.h"
#include "image/sbom/packages.h"
#include "image/tree/erofs.h"
#include "image/tree/sha256.h"

namespace smol::image {

namespace {

using nlohmann::ordered_json;

constexpr const char* kUnknown = "NOASSERTION";
constexpr u64 kMaxPart = 512 * kMiB;

std::string time_text(u64 seconds) {
  const std::time_t time = static_cast<std::time_t>(seconds);
  std::tm parts{};
  gmtime_r(&time, &parts);
  char text[32];
  std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

std::string sha256_hex(std::string_view bytes) {
  Sha256 hash;
  hash.add({reinterpret_cast<const u8*>(bytes.data()), bytes.size()});
  return hash.finish().substr(std::string_view("sha256:").size());
}

ordered_json package_json(std::string id, std::string_view name, std::string_view version) {
  ordered_json package{{"SPDXID", std::move(id)}, {"name", name}};
  if (!version.empty()) package["versionInfo"] = version;
  package["downloadLocation"] = kUnknown;
  package["filesAnalyzed"] = false;
  package["licenseConcluded"] = kUnknown;
  package["licenseDeclared"] = kUnknown;
  package["copyrightText"] = kUnknown;
  return package;
}

// The document under construction: everything but the first package is contained in it.
class Document {
 public:
  explicit Document(const SbomInput& input) {
    ordered_json machine = package_json(kMachine, input.name, "");
    machine["primaryPackagePurpose"] = "CONTAINER";
    packages_.push_back(std::move(machine));
    relate("SPDXRef-DOCUMENT", "DESCRIBES", kMachine);
  }
  void add_part(const SbomPart& part) {
    ordered_json package = package_json("SPDXRef-Part-" + part.name, part.name, part.version);
    package["checksums"] =
        ordered_json::array({{{"algorithm", "SHA256"}, {"checksumValue", part.sha256}}});
    if (!part.comment.empty()) package["comment"] = part.comment;
    contain(std::move(package));
  }
  void add_packages(const FoundPackages& found) {
    if (!found.distribution.empty()) {
      ordered_json system =
          package_json("SPDXRef-Distribution", found.distribution, found.distribution_version);
      system["primaryPackagePurpose"] = "OPERATING-SYSTEM";
      contain(std::move(system));
    }
    std::size_t number = 0;
    for (const Package& entry : found.packages) {
      ordered_json package =
          package_json(fmt::format("SPDXRef-Package-{}", ++number), entry.name, entry.version);
      package["sourceInfo"] = "found in " + entry.found_in;
      // What a record calls a license need not be an SPDX expression.
      if (!entry.license.empty()) package["licenseComments"] = "declared as: " + entry.license;
      package["externalRefs"] = ordered_json::array({{{"referenceCategory", "PACKAGE-MANAGER"},
                                                      {"referenceType", "purl"},
                                                      {"referenceLocator", entry.purl}}});
      contain(std::move(package));
    }
    for (const std::string& note : found.notes) note_down(note);
  }
  void note_down(const std::string& note) { notes_ += (notes_.empty() ? "" : "\n") + note; }

  std::string finish(const SbomInput& input) {
    ordered_json document{{"spdxVersion", "SPDX-2.3"},
                          {"dataLicense", "CC0-1.0"},
                          {"SPDXID", "SPDXRef-DOCUMENT"},
                          {"name", input.name},
                          {"documentNamespace", ""},
                          {"creationInfo",
                           {{"created", time_text(input.created)},
                            {"creators", {"Tool: smolvm-" + input.tool_version}}}}};
    if (!notes_.empty()) document["comment"] = notes_;
    document["packages"] = std::move(packages_);
    document["relationships"] = std::move(relationships_);
    document["documentNamespace"] = "urn:smolvm:sbom:" + sha256_hex(text_of(document));
    return text_of(document) + "\n";
  }

 private:
  static constexpr const char* kMachine = "SPDXRef-Machine";
  static std::string text_of(const ordered_json& document) {
    return document.dump(2, ' ', false, ordered_json::error_handler_t::replace);
  }
  void relate(const std::string& from, const char* how, const std::string& to) {
    relationships_.push_back(
        {{"spdxElementId", from}, {"relationshipType", how}, {"relatedSpdxElement", to}});
  }
  void contain(ordered_json package) {
    relate(kMachine, "CONTAINS", package["SPDXID"].get<std::string>());
    packages_.push_back(std::move(package));
  }

  ordered_json packages_ = ordered_json::array();
  ordered_json relationships_ = ordered_json::array();
  std::string notes_;
};

Result<std::string> write_with_notes(const SbomInput& input,
                                     const std::vector<std::string>& notes) {
  Document document(input);
  for (const SbomPart& part : input.parts) document.add_part(part);
  if (input.root != nullptr) {
    TRY_ASSIGN(const FoundPackages found, find_packages(*input.root));
    document.add_packages(found);
  }
  for (const std::string& note : notes) document.note_down(note);
  return document.finish(input);
}

Result<std::string> hash_of_program(const Container& container) {
  Sha256 hash;
  std::vector<u8> buffer(kMiB);
  for (u64 done = 0; done < container.base(); done += buffer.size()) {
    buffer.resize(std::min<u64>(kMiB, container.base() - done));
    TRY(base::read_exact_at(container.fd(), buffer, done, container.name()));
    hash.add(buffer);
  }
  return hash.finish().substr(std::string_view("sha256:").size());
}

Result<> add_sections(const Container& container, SbomInput& input,
                      std::vector<std::string>& notes) {
  for (const Section& section : container.sections()) {
    const bool kernel = section.kind == SectionKind::kKernel;
    if (!kernel && section.kind != SectionKind::kInitramfs && section.kind != SectionKind::kRuntime)
      continue;
    if (section.encrypted) {
      notes.push_back(fmt::format("section {} is encrypted and not described", section.name));
      continue;
    }
    TRY_ASSIGN(const std::string bytes, container.read_section(section, kMaxPart));
    input.parts.push_back(
        {.name = section.name,
         .version = kernel ? kernel_version(bytes) : "",
         .sha256 = sha256_hex(bytes),
         .comment = fmt::format("section {} of kind {}", section.name, to_string(section.kind))});
  }
  return {};
}

}  // namespace

std::string kernel_version(std::string_view kernel) {
  static constexpr std::string_view kPrefix = "Linux version ";
  for (std::size_t at = kernel.find(kPrefix); at != kernel.npos;
       at = kernel.find(kPrefix, at + 1)) {
    const std::string_view rest = kernel.substr(at + kPrefix.size(), 64);
    const std::string_view version = rest.substr(0, rest.find(' '));
    if (!version.empty() && version[0] >= '0' && version[0] <= '9' && version.size() < rest.size())
      return std::string(version);
  }
  return "";
}

Result<std::string> write_sbom(const SbomInput& input) { return write_with_notes(input, {}); }

Result<std::string> sbom_of(const Container& container, const std::string& tool_version) {
  SbomInput input{
      .name = "machine", .tool_version = tool_version, .created = container.created(), .parts = {}};
  std::vector<std::string> notes;
  if (const Section* const section = container.find(SectionKind::kConfig);
      section != nullptr && !section->encrypted) {
    TRY_ASSIGN(const std::string text, container.read_section(*section, PackedConfig::kMaxText));
    TRY_ASSIGN(const PackedConfig config, PackedConfig::parse(text));
    if (!config.name.empty()) input.name = config.name;
  }
  TRY(add_sections(container, input, notes));
  if (container.base() != 0) {
    TRY(container.verify_program());
    TRY_ASSIGN(std::string digest, hash_of_program(container));
    input.parts.push_back({.name = "program",
                           .version = "",
                           .sha256 = std::move(digest),
                           .comment = "launcher and monitor, with padding to 4096 bytes"});
  }
  const Section* const root = container.find(SectionKind::kRoot);
  if (root == nullptr) return write_with_notes(input, notes);
  if (!root->plain()) {
    notes.push_back("the root is stored compressed or encrypted; its packages are not listed");
    return write_with_notes(input, notes);
  }
  TRY(container.check_range(*root, 0, root->size));
  TRY_ASSIGN(const u64 offset, container.file_offset(*root));
  TRY_ASSIGN(const Tree tree, read_erofs(container.fd(), offset, root->size, container.name()));
  input.root = &tree;
  return write_with_notes(input, notes);
}

}  // namespace smol::image

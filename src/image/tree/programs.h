// Programs of the host in a tree, with the dynamic loader and exactly the libraries that they need,
// found as the loader would find them (ld.so(8)): DT_RPATH, DT_RUNPATH with $ORIGIN, the folders of
// /etc/ld.so.conf, the system's.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "image/tree/elf.h"
#include "image/tree/tree.h"

namespace smol::image {

class ProgramAdder {
 public:
  // host_root: what the host's paths are below ("" is "/"): another root, for tests.
  explicit ProgramAdder(Tree& tree, std::string host_root = "");

  // Adds the file at `host` as `inside` ("/usr/bin/x"), with what it needs, at the paths where the
  // host has it. A script brings its interpreter. A library that is not there is an Error that
  // names who needs it.
  Result<> add(const std::string& host, const std::string& inside);

  // Paths in the tree of what was added besides the programs, in order.
  const std::vector<std::string>& added() const { return added_; }
  // For people: what the program may open at run time and no header names.
  const std::vector<std::string>& hints() const { return hints_; }
  bool uses_glibc() const { return glibc_; }

 private:
  // One file being added, and who asked for it: DT_RPATH of all of them counts.
  struct Loaded {
    std::string host, inside;
    ElfFile elf;
    const Loaded* loader = nullptr;
  };
  struct Found {
    std::string host, inside;
  };
  Result<> add_file(const std::string& host, const std::string& inside, const Loaded* loader,
                    int depth);
  Result<> add_script(const std::string& host, const std::string& first_line, int depth);
  Result<> add_needs(const Loaded& loaded, int depth);
  Result<Found> find(const std::string& name, const Loaded& loaded) const;
  bool find_in(const std::string& folders, const Loaded& owner, const std::string& name,
               u16 machine, Found& found) const;
  bool is_library(const std::string& host, u16 machine) const;
  Result<> link_into_default_folder(const Found& found, const std::string& name);
  void hint(const std::string& text);

  Tree& tree_;
  const std::string host_root_;
  std::vector<std::string> folders_;  // searched last, in order
  std::set<std::string> done_;        // paths in the tree
  std::vector<std::string> added_, hints_;
  bool glibc_ = false;
};

}  // namespace smol::image

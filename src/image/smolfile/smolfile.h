// Smolfile: what a machine is made of, and how its image is built, as a TOML file beside the
// sources.
//
// Reading is strict: an unknown key, a wrong type, a value out of its range is an Error that begins
// with FILE:LINE:COLUMN; of an unknown key it names the nearest known one. Reading touches no other
// file than those named (a base that is a Smolfile itself). Format: docs/formats/smolfile.md.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace smol::image {

// Where something stands in its file, both from 1.
struct SmolfilePlace {
  u32 line = 0, column = 0;
};

struct BuildStep {
  enum class Kind { kCopy, kRun, kEnv, kWorkdir, kUser };
  Kind kind = Kind::kRun;
  SmolfilePlace place;
  std::vector<std::string> sources;  // copy: below the Smolfile's folder, patterns of glob(7)
  std::string target;                // copy: where; with '/' at its end: into that directory
  std::vector<std::string> exclude;  // copy: patterns of names or paths that are left out
  std::optional<u32> mode;           // copy: permission bits of files
  std::string owner;                 // copy: "uid[:gid]" or names of the image; "": 0:0
  std::vector<std::string> command;  // run: a program and its arguments
  bool net = false;                  // run: with a network
  std::vector<std::string> env;      // "NAME=value"
  std::string text;                  // workdir: absolute; user
};

struct BuildPlan {
  SmolfilePlace place;   // of what names the base
  std::string base;      // reference, archive, OCI directory; "" when one of the others is it
  bool scratch = false;  // nothing
  std::string rootfs;    // a directory of the host (absolute)
  std::string smolfile;  // what another Smolfile builds (absolute path)
  std::string platform;  // "linux/amd64"; "": this host's
  u64 epoch = 0;         // seconds since 1970: no file is newer
  u64 cpus = 1, memory_mib = 512;  // of the machines in which steps run
  std::vector<BuildStep> steps;
};

struct SmolfileSecret {
  std::string name, from_env, from_file;  // one of the two
};

// Everything of a Smolfile. Lists are as written; what is not said is empty. Relative paths of the
// host have been put behind the Smolfile's folder.
struct Smolfile {
  std::string path;    // as given
  std::string folder;  // absolute, links resolved
  // A reference, archive or directory; with [build]: the name that its result gets.
  std::string image;
  std::optional<std::vector<std::string>> entrypoint, cmd;
  std::vector<std::string> env;
  std::string workdir, user;
  std::optional<u64> cpus, memory_mib, storage_gib, overlay_gib;
  std::optional<bool> net;
  std::vector<std::string> ports, volumes, init, expose;
  std::vector<std::pair<std::string, std::string>> labels;
  std::string stop_signal;

  struct Dev {  // over the above, for machines on the developer's host
    std::vector<std::string> env, volumes, init, ports;
    std::string workdir;
  } dev;
  struct Artifact {  // over the above, for capsules
    std::optional<u64> cpus, memory_mib;
    std::optional<std::vector<std::string>> entrypoint, cmd;
    std::vector<std::string> env;
    std::string platform;
  } artifact;
  struct Network {
    std::vector<std::string> allow_hosts, allow_cidrs, add_hosts;
    std::string dns, segment;
    std::optional<bool> host_access;
  } network;
  struct Health {
    std::vector<std::string> exec;
    u64 interval_ns = 0, timeout_ns = 0, startup_grace_ns = 0, retries = 0;  // 0: not said
  } health;
  struct Restart {
    std::string policy;  // "", never, on-failure, always
    u64 max_retries = 0, max_backoff_ns = 0;
  } restart;
  struct Service {
    u64 listen = 0;  // port; 0: not said
    std::string protocol;
  } service;
  bool ssh_agent = false;
  std::vector<SmolfileSecret> secrets;
  std::optional<BuildPlan> build;

  // Where each key stands, as "ports" and "dev.ports".
  std::map<std::string, SmolfilePlace, std::less<>> places;

  // "FILE:LINE:COLUMN".
  std::string at(SmolfilePlace place) const;
  std::string at(std::string_view key) const;  // of a key that is there; else FILE alone
};

// text: the file's bytes. path is for errors and for where relative paths begin; nothing is opened.
Result<Smolfile> parse_smolfile(std::string_view text, const std::string& path,
                                const std::string& folder);
// A file, or a directory with a file `Smolfile` in it.
Result<Smolfile> read_smolfile(const std::string& path);
// The Smolfile and those that its base leads to, the innermost first. A circle is an Error.
Result<std::vector<Smolfile>> read_smolfile_chain(const std::string& path);

// The known word with the fewest changes to `word`; "" when none is near.
std::string nearest_word(std::string_view word, const std::vector<std::string_view>& known);

}  // namespace smol::image

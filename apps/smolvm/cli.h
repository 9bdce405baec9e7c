// The command line as a value. The verb table (verbs.cc) says which verbs there are, with which
// options; one unit (cli.cc) knows the parser; help, shell completion and man pages are made from
// the same table.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace smolvm {

using smol::Result;
using smol::u64;

enum class Takes {
  kFlag,
  kText,
  kNumber,   // whole, decimal
  kTexts,    // may be repeated
  kRefused,  // a spelling that users of this tool family know and that is not there yet
};

struct Option {
  const char* names;  // "-n,--name"; the last one, without dashes, is its key
  Takes takes;
  const char* value;  // placeholder; "" for flags
  const char* help;
};

// What plain words mean to a verb.
enum class Words {
  kNone,
  kMachine,         // at most one: the machine's name, as --name
  kMachineCommand,  // behind `--` a command, before it at most one machine name; without `--` all
                    // of it is the command
  kCommand,         // a command, best after --
  kFixed,           // exactly as many as `words` names
  kSeveral,         // any number
};

struct Invocation;
using Handler = Result<int> (*)(const Invocation&);

struct Verb {
  const char* path;     // "machine create"
  const char* aliases;  // of its last word: "rm", comma separated
  const char* summary;
  Words takes_words;
  const char* words;  // for help: "[NAME]", "SRC DST"
  std::vector<std::span<const Option>> options;
  Handler run;  // nullptr: not there yet
  const char* more = "";
};

struct Group {
  const char* path;
  const char* aliases;
  const char* summary;
};

std::span<const Verb> verbs();
std::span<const Group> groups();
// "--volume" of "-v,--volume"; "volume"; {"-v", "--volume"}.
std::string_view key_of(const Option& option);
std::vector<std::string_view> split(std::string_view text, char separator);

// What was asked for.
struct Invocation {
  const Verb* verb = nullptr;
  std::map<std::string, std::vector<std::string>, std::less<>> values;
  std::vector<std::string> words;
  std::vector<std::string> command;
  u64 started_at = 0;  // CLOCK_MONOTONIC ns

  bool has(std::string_view key) const { return values.contains(key); }
  std::string text(std::string_view key, std::string_view otherwise = "") const;
  u64 number(std::string_view key, u64 otherwise) const;
  const std::vector<std::string>& list(std::string_view key) const;
  // --name, else the plain word, else "default"; both and different: an Error.
  Result<std::string> machine() const;
};

struct Parsed {
  std::optional<Invocation> invocation;
  int exit_status = 0;      // where there is no invocation: 0 after --help, 2 after a usage error
  std::string out, errors;  // what to print then
};
// Reads argv and nothing else: no file, no output.
Parsed parse(int argc, const char* const* argv);

// What --help prints for "", a group's or a verb's path.
std::string help_text(std::string_view path);

Result<int> run_doctor(const Invocation& invocation);
Result<int> run_version(const Invocation& invocation);
Result<int> run_kernel_path(const Invocation& invocation);
Result<int> run_completion(const Invocation& invocation);
Result<int> run_man(const Invocation& invocation);
Result<int> run_pack_create(const Invocation& invocation);
Result<int> run_pack_run(const Invocation& invocation);
Result<int> run_pack_rebase(const Invocation& invocation);
// `pack launch FILE WORDS...`: what the first line of a split executable calls; words are FILE's.
Result<int> run_pack_launch(int argc, char** argv);
Result<int> run_rootfs(const Invocation& invocation);
Result<int> run_build(const Invocation& invocation);
Result<int> run_machine_run(const Invocation& invocation);
Result<int> run_detached(const Invocation& invocation);  // `machine run -d`
Result<int> run_machine_create(const Invocation& invocation);
Result<int> run_machine_start(const Invocation& invocation);
Result<int> run_machine_stop(const Invocation& invocation);
Result<int> run_machine_delete(const Invocation& invocation);
Result<int> run_machine_shell(const Invocation& invocation);
Result<int> run_machine_pause(const Invocation& invocation);
Result<int> run_machine_resume(const Invocation& invocation);
Result<int> run_machine_exec(const Invocation& invocation);
Result<int> run_machine_status(const Invocation& invocation);
Result<int> run_machine_list(const Invocation& invocation);
Result<int> run_machine_update(const Invocation& invocation);
Result<int> run_machine_cp(const Invocation& invocation);
Result<int> run_machine_images(const Invocation& invocation);
Result<int> run_machine_port(const Invocation& invocation);
Result<int> run_machine_prune(const Invocation& invocation);
Result<int> run_machine_monitor(const Invocation& invocation);
Result<int> run_machine_egress_events(const Invocation& invocation);
Result<int> run_machine_data_dir(const Invocation& invocation);
Result<int> run_machine_logs(const Invocation& invocation);
Result<int> run_pack_inspect(const Invocation& invocation);
Result<int> run_pack_verify(const Invocation& invocation);
Result<int> run_pack_keygen(const Invocation& invocation);
Result<int> run_pack_sign(const Invocation& invocation);
Result<int> run_pack_push(const Invocation& invocation);
Result<int> run_pack_pull(const Invocation& invocation);
Result<int> run_pack_sbom(const Invocation& invocation);
Result<int> run_config_show(const Invocation& invocation);
Result<int> run_image_pull(const Invocation& invocation);
Result<int> run_image_list(const Invocation& invocation);
Result<int> run_image_remove(const Invocation& invocation);
Result<int> run_config_registries(const Invocation& invocation);

}  // namespace smolvm

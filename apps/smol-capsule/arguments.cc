#include "arguments.h"

#include <charconv>
#include <optional>
#include <span>

namespace capsule {
namespace {

struct VerbName {
  std::string_view name;
  Verb verb;
};
constexpr VerbName kVerbs[] = {{"run", Verb::kRun},   {"start", Verb::kStart},
                               {"exec", Verb::kExec}, {"shell", Verb::kShell},
                               {"stop", Verb::kStop}, {"status", Verb::kStatus},
                               {"info", Verb::kInfo}};

std::optional<Verb> find_verb(std::string_view word) {
  for (const VerbName& entry : kVerbs)
    if (entry.name == word) return entry.verb;
  return std::nullopt;
}

Result<u64> number(std::string_view option, std::string_view text, u64 most) {
  u64 value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value == 0 || value > most)
    return fail("{} {}: wanted a number from 1 to {}", option, text, most);
  return value;
}

struct Flag {
  std::string_view short_name, long_name;
  bool Arguments::* value;
};
constexpr Flag kFlags[] = {{"", "--net", &Arguments::net},
                           {"-i", "--interactive", &Arguments::interactive},
                           {"-t", "--tty", &Arguments::tty},
                           {"-T", "--no-tty", &Arguments::no_tty},
                           {"-d", "--detach", &Arguments::detach},
                           {"-f", "--force", &Arguments::force},
                           {"", "--verbose", &Arguments::verbose},
                           {"", "--json", &Arguments::json},
                           {"-P", "--publish-all", &Arguments::publish_all}};

bool set_flag(std::string_view word, Arguments& out) {
  for (const Flag& flag : kFlags)
    if (word == flag.long_name || (!flag.short_name.empty() && word == flag.short_name)) {
      out.*flag.value = true;
      return true;
    }
  return false;
}

enum class Option {
  kPort,
  kVolume,
  kEnv,
  kWorkdir,
  kMemory,
  kCpus,
  kAccel,
  kName,
  kUser,
  kEntry,
  kTimeout
};
struct Known {
  std::string_view short_name, long_name;
  Option option;
};
constexpr Known kOptions[] = {
    {"-p", "--port", Option::kPort},    {"-v", "--volume", Option::kVolume},
    {"-e", "--env", Option::kEnv},      {"-w", "--workdir", Option::kWorkdir},
    {"-u", "--user", Option::kUser},    {"-n", "--name", Option::kName},
    {"", "--mem", Option::kMemory},     {"", "--cpus", Option::kCpus},
    {"", "--accel", Option::kAccel},    {"", "--entrypoint", Option::kEntry},
    {"", "--timeout", Option::kTimeout}};

Result<> set_option(const Known& known, const std::string& value, Arguments& out) {
  switch (known.option) {
    case Option::kPort: {
      TRY_ASSIGN(auto port, machines::parse_port(value));
      out.ports.push_back(std::move(port));
      break;
    }
    case Option::kVolume: {
      TRY_ASSIGN(auto volume, machines::parse_volume(value));
      out.volumes.push_back(std::move(volume));
      break;
    }
    case Option::kEnv: {
      TRY_ASSIGN(auto entries, machines::parse_environment({value}));
      out.environment.insert(out.environment.end(), entries.begin(), entries.end());
      break;
    }
    case Option::kWorkdir:
      out.workdir = value;
      break;
    case Option::kUser:
      out.user = value;
      break;
    case Option::kEntry:
      out.entrypoint = value;
      break;
    case Option::kName: {
      TRY(machines::validate_name(value));
      out.name = value;
      break;
    }
    case Option::kMemory: {
      TRY_ASSIGN(out.memory_mib, number("--mem", value, machines::kMostMemoryMib));
      break;
    }
    case Option::kCpus: {
      TRY_ASSIGN(out.cpus, number("--cpus", value, machines::kMostCpus));
      break;
    }
    case Option::kTimeout: {
      TRY_ASSIGN(out.timeout_ns, machines::parse_duration("--timeout", value));
      out.timeout_text = value;
      break;
    }
    case Option::kAccel:
      if (value != "auto" && value != "kvm" && value != "soft")
        return fail("--accel {}: auto, kvm and soft are known", value);
      out.accel = value;
      break;
  }
  return {};
}

// How many words the option at the front took; 0: it is none of ours.
Result<std::size_t> take_option(std::span<char* const> words, Arguments& out) {
  const std::string_view word = words[0];
  if (set_flag(word, out)) return 1;
  for (const Known& known : kOptions) {
    const bool is_short = !known.short_name.empty() && word.starts_with(known.short_name);
    if (word == known.long_name || (is_short && word.size() == 2)) {
      if (words.size() < 2) return fail("{} needs a value", word);
      TRY(set_option(known, words[1], out));
      return 2;
    }
    const std::size_t size = known.long_name.size();
    if (word.starts_with(known.long_name) && word.size() > size && word[size] == '=') {
      TRY(set_option(known, std::string(word.substr(size + 1)), out));
      return 1;
    }
    if (is_short) {
      TRY(set_option(known, std::string(word.substr(2)), out));
      return 1;
    }
  }
  return 0;
}

}  // namespace

Result<Arguments> parse_arguments(int argc, char** argv) {
  Arguments out;
  const std::span<char* const> words(argv + 1, argc > 0 ? static_cast<std::size_t>(argc - 1) : 0);
  const auto verb = words.empty() ? std::nullopt : find_verb(words[0]);
  if (!verb) {
    const bool marked = !words.empty() && std::string_view(words[0]) == "--";
    out.words.assign(words.begin() + (marked ? 1 : 0), words.end());
    return out;
  }
  out.verb = *verb;
  out.plain = false;
  std::size_t at = 1;
  while (at < words.size()) {
    const std::string_view word = words[at];
    if (word == "--") {
      ++at;
      break;
    }
    if (word == "-h" || word == "--help") {
      out.verb = Verb::kHelp;
      return out;
    }
    if (!word.starts_with('-') || word == "-") break;
    TRY_ASSIGN(const std::size_t taken, take_option(words.subspan(at), out));
    if (taken == 0) return fail("{}: unknown option (the entry point's own go behind --)", word);
    at += taken;
  }
  out.words.assign(words.begin() + static_cast<std::ptrdiff_t>(std::min(at, words.size())),
                   words.end());
  if (out.detach && out.verb == Verb::kRun) out.verb = Verb::kStart;
  const bool takes_words =
      out.verb == Verb::kRun || out.verb == Verb::kStart || out.verb == Verb::kExec;
  if (!takes_words && !out.words.empty()) return fail("{}: unexpected", out.words[0]);
  if (out.verb == Verb::kExec && out.words.empty()) return fail("exec needs a command");
  return out;
}

std::string help_text(std::string_view program) {
  return fmt::format(
      "{0} [ARGUMENTS...]                   run; the arguments are the entry point's\n"
      "{0} run [OPTIONS] [--] [ARGUMENTS...]\n"
      "{0} start [OPTIONS] [--] [ARGUMENTS...]  run in the background\n"
      "{0} exec [-i] [-t] [-e K=V] [-w DIR] [-u USER] [--] COMMAND...  in what was started\n"
      "{0} shell | stop [-f] [--timeout 10s]\n"
      "{0} status [--json]                   whether it runs, and is well (asks its health "
      "command)\n"
      "{0} info [--json]                     what is in this file; checks every byte\n"
      "\n"
      "  -p HOST:GUEST        publish a port        -v HOST:GUEST[:ro]  share a directory\n"
      "  -P, --publish-all    publish the ports that were packed as exposed on free ones\n"
      "  -e NAME[=VALUE]      environment           -w DIR              working directory\n"
      "  -u USER              user                  --entrypoint PROGRAM\n"
      "  --mem MIB            memory                --cpus N\n"
      "  --net                network               --accel auto|kvm|soft\n"
      "  -n, --name NAME      of what is started    --timeout 30s       end it after this time\n"
      "  -T                   no terminal           --verbose           the kernel's messages\n",
      program);
}

}  // namespace capsule

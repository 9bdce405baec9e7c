// Help, shell completion and man pages, all from the verb table.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>

#include "base/fd.h"
#include "cli.h"

namespace smolvm {
namespace {

constexpr std::size_t kHelpColumn = 34, kHelpWidth = 110;

std::string spelling(const Option& option) {
  std::string text;
  for (const std::string_view name : split(option.names, ','))
    text += fmt::format("{}{}", text.empty() ? "" : ", ", name);
  return option.value[0] == '\0' ? text : fmt::format("{} {}", text, option.value);
}

std::string entry(const std::string& left, std::string_view right) {
  std::string line = fmt::format("  {:<{}}", left, kHelpColumn - 2);
  if (left.size() + 4 > kHelpColumn) line += fmt::format("\n{:<{}}", "", kHelpColumn);
  std::size_t column = kHelpColumn;
  for (const std::string_view word : split(right, ' ')) {
    if (column + word.size() > kHelpWidth) {
      while (line.back() == ' ') line.pop_back();
      line += fmt::format("\n{:<{}}", "", kHelpColumn);
      column = kHelpColumn;
    }
    line += fmt::format("{} ", word);
    column += word.size() + 1;
  }
  while (line.back() == ' ') line.pop_back();
  return line + "\n";
}

template <class Body>
void each_option(const Verb& verb, const Body& body) {
  for (const auto& part : verb.options)
    for (const Option& option : part)
      if (option.takes != Takes::kRefused) body(option);
}

std::string listing(std::string_view prefix) {
  std::string text;
  for (const Verb& verb : verbs()) {
    const std::string_view path = verb.path;
    if (verb.run == nullptr || !path.starts_with(prefix) ||
        (prefix.empty() && path.find(' ') != std::string_view::npos))
      continue;
    std::string left(path.substr(prefix.size()));
    for (const std::string_view alias : split(verb.aliases, ','))
      left += fmt::format(", {}", alias);
    text += entry(left, verb.summary);
  }
  if (prefix.empty())
    for (const Group& group : groups())
      text += entry(
          fmt::format("{}{}{} ...", group.path, *group.aliases != 0 ? ", " : "", group.aliases),
          group.summary);
  return text;
}

const Verb* verb_at(std::string_view path) {
  for (const Verb& verb : verbs())
    if (verb.path == path) return &verb;
  return nullptr;
}

}  // namespace

std::string help_text(std::string_view path) {
  if (const Verb* const verb = verb_at(path)) {
    std::string text = fmt::format("smolvm {}: {}\n\nUsage: smolvm {} [OPTIONS] {}\n\nOptions:\n",
                                   path, verb->summary, path, verb->words);
    each_option(*verb, [&](const Option& option) { text += entry(spelling(option), option.help); });
    text += entry("-h, --help", "this text");
    if (*verb->more != 0) text += fmt::format("\n{}\n", verb->more);
    return text;
  }
  std::string text = path.empty()
                         ? "smolvm runs Linux microVMs.\n\nUsage: smolvm VERB [OPTIONS]\n\nVerbs:\n"
                         : fmt::format("Usage: smolvm {} VERB [OPTIONS]\n\nVerbs:\n", path);
  text += listing(path.empty() ? std::string() : std::string(path) + " ");
  return text + "\n'--help' behind a verb says more.\n";
}

// --- Man pages
// ---------------------------------------------------------------------------------------------------------------

namespace {

std::string roff(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '-')
      out += "\\-";
    else if (c == '\\')
      out += "\\e";
    else if ((c == '.' || c == '\'') && out.empty())
      out += fmt::format("\\&{}", c);
    else
      out += c;
  }
  return out;
}

std::string page_name(std::string_view path) {
  std::string name = "smolvm-" + std::string(path);
  std::replace(name.begin(), name.end(), ' ', '-');
  return name;
}

std::string man_page(const Verb& verb) {
  const std::string name = page_name(verb.path);
  std::string text = fmt::format(
      ".TH {} 1 \"\" \"smolvm {}\"\n.SH NAME\n{} \\- {}\n.SH SYNOPSIS\n.B smolvm {}\n[OPTIONS] "
      "{}\n",
      name, SMOL_VERSION, roff(name), roff(verb.summary), roff(verb.path), roff(verb.words));
  if (*verb.aliases != 0) text += fmt::format(".PP\nAlso: {}.\n", roff(verb.aliases));
  text += ".SH OPTIONS\n";
  each_option(verb, [&](const Option& option) {
    text += fmt::format(".TP\n.B {}\n{}\n", roff(spelling(option)), roff(option.help));
  });
  text += ".TP\n.B \\-h, \\-\\-help\nhelp\n";
  if (*verb.more != 0) text += fmt::format(".SH NOTES\n{}\n", roff(verb.more));
  return text + ".SH SEE ALSO\n.BR smolvm (1)\n";
}

std::string main_page() {
  std::string text = fmt::format(
      ".TH smolvm 1 \"\" \"smolvm {}\"\n.SH NAME\nsmolvm \\- Linux microVMs\n.SH SYNOPSIS\n.B "
      "smolvm\nVERB [OPTIONS]\n.SH VERBS\n",
      SMOL_VERSION);
  for (const Verb& verb : verbs())
    if (verb.run != nullptr)
      text += fmt::format(".TP\n.B {}\n{}; see\n.BR {} (1)\n", roff(verb.path), roff(verb.summary),
                          roff(page_name(verb.path)));
  return text +
         ".SH ENVIRONMENT\n.TP\n.B SMOLVM_DATA_DIR\nfolder of the machines\n.TP\n.B NO_COLOR\nno "
         "colours on a terminal either\n";
}

Result<> write_page(const std::string& path, const std::string& text) {
  TRY_ASSIGN(const smol::base::UniqueFd file,
             smol::base::open_file(path, O_WRONLY | O_CREAT | O_TRUNC));
  return smol::base::write_all(file.get(),
                               {reinterpret_cast<const smol::u8*>(text.data()), text.size()}, path);
}

}  // namespace

Result<int> run_man(const Invocation& invocation) {
  const std::string& folder = invocation.words[0];
  if (::mkdir(folder.c_str(), 0777) != 0 && errno != EEXIST)
    return smol::fail_errno("cannot create the folder {}", folder);
  TRY(write_page(folder + "/smolvm.1", main_page()));
  for (const Verb& verb : verbs())
    if (verb.run != nullptr)
      TRY(write_page(fmt::format("{}/{}.1", folder, page_name(verb.path)), man_page(verb)));
  return 0;
}

// --- Completion
// --------------------------------------------------------------------------------------------------------------

namespace {

// "create delete rm ..." below a group, "machine vm doctor ..." at the top.
std::string words_below(std::string_view prefix) {
  std::string text;
  const auto add = [&](std::string_view word) {
    text += fmt::format("{}{}", text.empty() ? "" : " ", word);
  };
  for (const Verb& verb : verbs()) {
    const std::string_view path = verb.path;
    if (verb.run == nullptr || !path.starts_with(prefix) ||
        (prefix.empty() && path.find(' ') != std::string_view::npos))
      continue;
    add(path.substr(prefix.size()));
    for (const std::string_view alias : split(verb.aliases, ',')) add(alias);
  }
  if (prefix.empty())
    for (const Group& group : groups()) {
      add(group.path);
      for (const std::string_view alias : split(group.aliases, ',')) add(alias);
    }
  return text;
}

std::string option_words(const Verb& verb) {
  std::string text;
  each_option(verb, [&](const Option& option) {
    for (const std::string_view name : split(option.names, ',')) text += fmt::format("{} ", name);
  });
  return text + "--help";
}

// A shell pattern of all spellings: "machine create|vm create".
std::string pattern(const Verb& verb) {
  const auto parts = split(verb.path, ' ');
  std::vector<std::string> heads = {""};
  if (parts.size() == 2) {
    heads.clear();
    for (const Group& group : groups())
      if (group.path == parts[0]) {
        heads.push_back(std::string(group.path) + " ");
        for (const std::string_view alias : split(group.aliases, ','))
          heads.push_back(std::string(alias) + " ");
      }
  }
  std::string text;
  for (const std::string& head : heads) {
    const auto add = [&](std::string_view tail) {
      text += fmt::format("{}\"{}{}\"", text.empty() ? "" : "|", head, tail);
    };
    add(parts.back());
    for (const std::string_view alias : split(verb.aliases, ',')) add(alias);
  }
  return text;
}

bool names_machine(const Verb& verb) {
  return verb.takes_words == Words::kMachine || verb.takes_words == Words::kMachineCommand;
}

constexpr const char* kNames = "smolvm machine ls 2>/dev/null | sed -n '2,$s/ .*//p'";

std::string bash_script() {
  std::string text =
      "# bash completion for smolvm\n_smolvm() {\n  local cur=${COMP_WORDS[COMP_CWORD]} "
      "prev=${COMP_WORDS[COMP_CWORD-1]} words=\n"
      "  if ((COMP_CWORD == 1)); then words=\"" +
      words_below("") + "\"\n";
  for (const Group& group : groups()) {
    std::string test = fmt::format("${{COMP_WORDS[1]}} == {}", group.path);
    for (const std::string_view alias : split(group.aliases, ','))
      test += fmt::format(" || ${{COMP_WORDS[1]}} == {}", alias);
    text += fmt::format("  elif ((COMP_CWORD == 2)) && [[ {} ]]; then words=\"{}\"\n", test,
                        words_below(std::string(group.path) + " "));
  }
  text +=
      "  else\n    local verb=${COMP_WORDS[1]}\n    case $verb in machine|vm|kernel) verb+=\" "
      "${COMP_WORDS[2]}\" ;; esac\n    case $verb in\n";
  for (const Verb& verb : verbs()) {
    if (verb.run == nullptr) continue;
    text += fmt::format("      {}) words=\"{}\"", pattern(verb), option_words(verb));
    if (names_machine(verb)) text += fmt::format("; [[ $cur == -* ]] || words=$({})", kNames);
    text += " ;;\n";
  }
  text += fmt::format("    esac\n    [[ $prev == --name || $prev == -n ]] && words=$({})\n  fi\n",
                      kNames);
  return text +
         "  COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n}\ncomplete -o default -F _smolvm "
         "smolvm\n";
}

std::string zsh_script() {
  return "#compdef smolvm\n# zsh completion for smolvm: the bash function through "
         "bashcompinit\nautoload -U +X bashcompinit && bashcompinit\n" +
         bash_script();
}

std::string fish_quoted(std::string_view text) {
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'' || c == '\\') out += '\\';
    out += c;
  }
  return out + "'";
}

std::string fish_script() {
  std::string text =
      "# fish completion for smolvm\n"
      "function __smolvm_at\n  set -l words (commandline -opc)\n  set -e words[1]\n"
      "  set -l verb $words[1]\n  contains -- \"$verb\" machine vm kernel; and test (count $words) "
      "-ge 2; and set verb \"$verb $words[2]\"\n"
      "  contains -- \"$verb\" $argv\nend\n"
      "function __smolvm_words\n  set -l words (commandline -opc)\n  test (count $words) -eq "
      "$argv[1]; and begin\n"
      "    test $argv[1] -eq 1; or contains -- $words[2] $argv[2..]\n  end\nend\n";
  text += fmt::format("complete -c smolvm -f -n '__smolvm_words 1' -a {}\n",
                      fish_quoted(words_below("")));
  for (const Group& group : groups())
    text += fmt::format("complete -c smolvm -f -n '__smolvm_words 2 {} {}' -a {}\n", group.path,
                        group.aliases, fish_quoted(words_below(std::string(group.path) + " ")));
  for (const Verb& verb : verbs()) {
    if (verb.run == nullptr) continue;
    std::string at = pattern(verb);
    std::replace(at.begin(), at.end(), '|', ' ');
    if (names_machine(verb))
      text += fmt::format("complete -c smolvm -f -n '__smolvm_at {}' -a \"({})\"\n", at,
                          "smolvm machine ls 2>/dev/null | sed -n '2,\\$s/ .*//p'");
    each_option(verb, [&](const Option& option) {
      text += fmt::format("complete -c smolvm -n '__smolvm_at {}'", at);
      for (const std::string_view name : split(option.names, ','))
        text += name.starts_with("--") ? fmt::format(" -l {}", name.substr(2))
                                       : fmt::format(" -s {}", name.substr(1));
      text +=
          fmt::format("{} -d {}\n", option.value[0] == '\0' ? "" : " -r", fish_quoted(option.help));
    });
  }
  return text;
}

}  // namespace

Result<int> run_completion(const Invocation& invocation) {
  const std::string& shell = invocation.words[0];
  if (shell == "bash")
    fmt::print("{}", bash_script());
  else if (shell == "zsh")
    fmt::print("{}", zsh_script());
  else if (shell == "fish")
    fmt::print("{}", fish_script());
  else
    return smol::fail("no completion for '{}': bash, zsh and fish are known", shell);
  return 0;
}

}  // namespace smolvm

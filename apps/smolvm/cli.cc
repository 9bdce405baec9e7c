// The verb table over CLI11, which throws and is slow to compile: it is known in this unit alone.
#include "cli.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <deque>

namespace smolvm {
namespace {

// Where an option's value lands; CLI11 wants addresses that stay.
struct Slot {
  const Option* option;
  bool flag = false;
  std::string text{};
  std::vector<std::string> texts{};
  CLI::Option* handle = nullptr;
};

struct Tree {
  CLI::App app{"smolvm runs Linux microVMs.", "smolvm"};
  std::map<const Verb*, CLI::App*> apps;
  std::map<const Verb*, std::deque<Slot>> slots;
  std::map<const Verb*, std::vector<std::string>> words;
};

std::string whole_number(std::string& text) {
  const bool digits =
      !text.empty() && text.size() <= 18 &&
      std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
  return digits ? "" : fmt::format("'{}' is no whole number", text);
}

void add_aliases(CLI::App& app, const char* aliases) {
  for (const std::string_view alias : split(aliases, ',')) app.alias(std::string(alias));
}

void declare_option(CLI::App& app, Slot& slot) {
  const Option& option = *slot.option;
  switch (option.takes) {
    case Takes::kFlag:
      slot.handle = app.add_flag(option.names, slot.flag, option.help);
      return;
    case Takes::kText:
      slot.handle = app.add_option(option.names, slot.text, option.help);
      break;
    case Takes::kNumber:
      slot.handle = app.add_option(option.names, slot.text, option.help)
                        ->check(CLI::Validator(whole_number, ""));
      break;
    case Takes::kTexts:
      slot.handle = app.add_option(option.names, slot.texts, option.help)->allow_extra_args(false);
      break;
    case Takes::kRefused:
      if (option.value[0] == '\0') {
        slot.handle = app.add_flag(option.names, slot.flag, "")->group("");
      } else {
        slot.handle = app.add_option(option.names, slot.text, "")->group("");
      }
      return;
  }
  slot.handle->type_name(option.value);
}

void declare_verb(Tree& tree, CLI::App& parent, const Verb& verb) {
  const std::string_view path = verb.path;
  const std::string name(path.substr(path.rfind(' ') + 1));
  auto* const app = parent.add_subcommand(name, verb.summary);
  add_aliases(*app, verb.aliases);
  if (verb.run == nullptr) app->group("")->allow_extras();
  tree.apps[&verb] = app;
  for (const auto& part : verb.options)
    for (const Option& option : part) {
      Slot& slot = tree.slots[&verb].emplace_back(Slot{.option = &option});
      declare_option(*app, slot);
    }
  auto& words = tree.words[&verb];
  if (verb.takes_words == Words::kMachine || verb.takes_words == Words::kMachineCommand) {
    app->add_option("machine", words, "the machine's name")
        ->expected(0, 1)
        ->type_name("")
        ->group("");
  } else if (verb.takes_words == Words::kSeveral) {
    app->add_option("words", words, "")->type_name("")->group("");
  } else if (verb.takes_words == Words::kFixed) {
    app->add_option("words", words, "")
        ->required()
        ->expected(static_cast<int>(split(verb.words, ' ').size()))
        ->type_name("")
        ->group("");
  }
}

std::string_view group_of(const Verb& verb) {
  const std::string_view path = verb.path;
  const std::size_t space = path.rfind(' ');
  return space == std::string_view::npos ? "" : path.substr(0, space);
}

// only: the one verb that the words can mean, or nullptr. All verbs with their options cost more
// than most commands do themselves.
void build(Tree& tree, const Verb* only) {
  tree.app.require_subcommand(1);
  std::map<std::string_view, CLI::App*> parents{{"", &tree.app}};
  for (const Group& group : groups()) {
    if (only != nullptr && group_of(*only) != group.path) continue;
    auto* const app = tree.app.add_subcommand(group.path, group.summary);
    add_aliases(*app, group.aliases);
    app->require_subcommand(1);
    parents[group.path] = app;
  }
  for (const Verb& verb : verbs())
    if (only == nullptr || only == &verb) declare_verb(tree, *parents.at(group_of(verb)), verb);
}

// The verb that the first words name, and how many they are.
std::pair<const Verb*, int> find_verb(int argc, const char* const* argv) {
  const auto is = [](std::string_view word, std::string_view name, std::string_view aliases) {
    const auto others = split(aliases, ',');
    return word == name || std::find(others.begin(), others.end(), word) != others.end();
  };
  for (const Verb& verb : verbs()) {
    const auto parts = split(verb.path, ' ');
    if (argc <= static_cast<int>(parts.size())) continue;
    bool same = is(argv[parts.size()], parts.back(), verb.aliases);
    if (parts.size() == 2)
      for (const Group& group : groups())
        if (group.path == parts[0]) same = same && is(argv[1], group.path, group.aliases);
    if (same) return {&verb, static_cast<int>(parts.size()) + 1};
  }
  return {nullptr, argc};
}

// Where the command begins in argv (argc: there is none): behind `--`, or at the first word that is
// neither an option nor its value. What stands before it is for the parser.
int command_start(const CLI::App& app, int argc, const char* const* argv, int first) {
  for (int i = first; i < argc; ++i) {
    const std::string word(argv[i]);
    if (word == "--" || word.size() < 2 || word[0] != '-') return i;
    const CLI::Option* const option = app.get_option_no_throw(word);
    if (option != nullptr && option->get_expected_max() > 0 && option->get_items_expected_max() > 0)
      ++i;
  }
  return argc;
}

int dashes(int argc, const char* const* argv, int first) {
  for (int i = first; i < argc; ++i)
    if (std::string_view(argv[i]) == "--") return i;
  return -1;
}

Parsed usage_error(std::string_view text) {
  Parsed parsed;
  parsed.exit_status = 2;
  parsed.errors = fmt::format("Error: {}\nTry 'smolvm --help'.\n", text);
  return parsed;
}

// The words name no verb: how far they made sense.
Parsed unknown_verb(int argc, const char* const* argv) {
  if (argc < 2) return usage_error("a verb is missing");
  std::string path = argv[1];
  for (const Group& group : groups()) {
    const auto aliases = split(group.aliases, ',');
    if (path != group.path && std::find(aliases.begin(), aliases.end(), path) == aliases.end())
      continue;
    if (argc < 3) return usage_error(fmt::format("a verb is missing behind '{}'", path));
    path += fmt::format(" {}", argv[2]);
  }
  return usage_error(fmt::format("unknown verb '{}'", path));
}

const Option* refused(const std::deque<Slot>& slots) {
  for (const Slot& slot : slots)
    if (slot.option->takes == Takes::kRefused && slot.handle->count() > 0) return slot.option;
  return nullptr;
}

void collect(const std::deque<Slot>& slots, Invocation& invocation) {
  for (const Slot& slot : slots) {
    if (slot.handle->count() == 0) continue;
    auto& values = invocation.values[std::string(key_of(*slot.option))];
    if (slot.option->takes == Takes::kTexts) {
      values.insert(values.end(), slot.texts.begin(), slot.texts.end());
    } else if (slot.option->takes != Takes::kFlag) {
      values.push_back(slot.text);
    }
  }
}

Parsed help(const CLI::App& app) {
  std::string path;
  const CLI::App* asked = &app;
  while (!asked->get_subcommands().empty()) {
    asked = asked->get_subcommands().front();
    path += (path.empty() ? "" : " ") + asked->get_name();
  }
  Parsed parsed;
  parsed.out = help_text(path);
  return parsed;
}

}  // namespace

Parsed parse(int argc, const char* const* argv) {
  const auto [verb, first] = find_verb(argc, argv);
  Tree tree;
  build(tree, verb);
  Invocation invocation;
  int end = argc;
  if (verb != nullptr && verb->run == nullptr)
    return usage_error(fmt::format("'{}' is not supported yet", verb->path));
  if (verb != nullptr &&
      (verb->takes_words == Words::kCommand || verb->takes_words == Words::kMachineCommand)) {
    end = verb->takes_words == Words::kMachineCommand ? dashes(argc, argv, first) : -1;
    if (end < 0) end = command_start(*tree.apps[verb], argc, argv, first);
    const int command = end < argc && std::string_view(argv[end]) == "--" ? end + 1 : end;
    invocation.command.assign(argv + command, argv + argc);
  }
  try {
    tree.app.parse(end, argv);
  } catch (const CLI::CallForHelp&) {
    return help(tree.app);
  } catch (const CLI::Error& error) {
    return verb == nullptr ? unknown_verb(argc, argv) : usage_error(error.what());
  }
  if (verb == nullptr || !tree.apps[verb]->parsed()) return usage_error("the verb must come first");
  if (const Option* const option = refused(tree.slots[verb]); option != nullptr)
    return usage_error(fmt::format("{} is not supported yet", split(option->names, ',').back()));
  invocation.verb = verb;
  invocation.words = tree.words[verb];
  collect(tree.slots[verb], invocation);
  Parsed parsed;
  parsed.invocation = std::move(invocation);
  return parsed;
}

}  // namespace smolvm

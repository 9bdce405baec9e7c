#include "cli.h"

#include <gtest/gtest.h>

#include <set>

namespace smolvm {
namespace {

Parsed read(std::vector<const char*> words) {
  words.insert(words.begin(), "smolvm");
  return parse(static_cast<int>(words.size()), words.data());
}

TEST(VerbTable, NoSpellingIsTakenTwice) {
  std::set<std::string> paths;
  for (const Verb& verb : verbs()) {
    EXPECT_TRUE(paths.insert(verb.path).second) << verb.path;
    std::set<std::string_view> names, keys;
    for (const auto& part : verb.options)
      for (const Option& option : part) {
        EXPECT_TRUE(keys.insert(key_of(option)).second) << verb.path << " " << option.names;
        for (const std::string_view name : split(option.names, ','))
          EXPECT_TRUE(names.insert(name).second) << verb.path << " " << name;
        EXPECT_EQ(option.takes == Takes::kFlag,
                  option.takes != Takes::kRefused && option.value[0] == '\0')
            << option.names;
        if (option.takes != Takes::kRefused) EXPECT_NE(option.help[0], '\0') << option.names;
      }
  }
}

TEST(VerbTable, EveryVerbHasHelpThatNamesItsOptions) {
  for (const Verb& verb : verbs()) {
    if (verb.run == nullptr) continue;
    const std::string help = help_text(verb.path);
    for (const auto& part : verb.options)
      for (const Option& option : part)
        EXPECT_EQ(help.find("  " + std::string(option.names)
                                       .substr(0, std::string_view(option.names).find(','))) !=
                      std::string::npos,
                  option.takes != Takes::kRefused)
            << verb.path << " " << option.names;
  }
}

TEST(CommandLine, OptionsAndWordsArrive) {
  const auto parsed = read({"vm", "create", "-p", "1:2", "--cpus=4", "-p", "3:4", "--net", "web"});
  ASSERT_TRUE(parsed.invocation) << parsed.errors;
  const Invocation& got = *parsed.invocation;
  EXPECT_STREQ(got.verb->path, "machine create");
  EXPECT_EQ(got.list("port"), (std::vector<std::string>{"1:2", "3:4"}));
  EXPECT_EQ(got.number("cpus", 1), 4u);
  EXPECT_TRUE(got.has("net"));
  EXPECT_FALSE(got.has("mem"));
  EXPECT_EQ(*got.machine(), "web");
}

TEST(CommandLine, AMachineIsNamedByOptionOrLastWordOrIsTheDefault) {
  EXPECT_EQ(*read({"machine", "start"}).invocation->machine(), "default");
  EXPECT_EQ(*read({"machine", "start", "--name", "a"}).invocation->machine(), "a");
  EXPECT_EQ(*read({"machine", "start", "-n", "a", "a"}).invocation->machine(), "a");
  EXPECT_FALSE(read({"machine", "start", "-n", "a", "b"}).invocation->machine());
  EXPECT_EQ(read({"machine", "start", "a", "b"}).exit_status, 2);
}

TEST(CommandLine, ACommandIsNotRead) {
  auto parsed = read({"machine", "exec", "web", "--", "ls", "--json", "-x"});
  ASSERT_TRUE(parsed.invocation) << parsed.errors;
  EXPECT_EQ(*parsed.invocation->machine(), "web");
  EXPECT_EQ(parsed.invocation->command, (std::vector<std::string>{"ls", "--json", "-x"}));
  parsed = read({"machine", "exec", "-n", "web", "-e", "A=b", "ls", "--name", "x"});
  ASSERT_TRUE(parsed.invocation) << parsed.errors;
  EXPECT_EQ(*parsed.invocation->machine(), "web");
  EXPECT_EQ(parsed.invocation->command, (std::vector<std::string>{"ls", "--name", "x"}));
  parsed = read({"machine", "run", "--cpus", "2", "--", "--help"});
  ASSERT_TRUE(parsed.invocation) << parsed.errors;
  EXPECT_EQ(parsed.invocation->command, (std::vector<std::string>{"--help"}));
}

TEST(CommandLine, UsageErrorsHaveStatus2AndNameTheThing) {
  const auto refused = [](std::vector<const char*> words, const char* part) {
    const auto parsed = read(words);
    EXPECT_FALSE(parsed.invocation);
    EXPECT_EQ(parsed.exit_status, 2);
    EXPECT_NE(parsed.errors.find(part), std::string::npos) << parsed.errors;
  };
  refused({}, "");
  refused({"machine"}, "");
  refused({"machine", "fly"}, "fly");
  refused({"machine", "create", "--wings"}, "--wings");
  refused({"machine", "create", "--cpus", "many"}, "many");
  refused({"machine", "create", "--cpus", "-1"}, "--cpus");
  refused({"machine", "run", "--gpu"}, "--gpu");
  refused({"machine", "branch", "--count", "3"}, "machine branch");
  refused({"machine", "fork"}, "machine branch");
  refused({"machine", "checkpoint-log"}, "checkpoint-log");
  refused({"machine", "cp", "a"}, "");
}

TEST(CommandLine, HelpGoesToStandardOutput) {
  for (const auto& words : std::vector<std::vector<const char*>>{
           {"--help"}, {"machine", "--help"}, {"machine", "cp", "-h"}}) {
    const auto parsed = read(words);
    EXPECT_FALSE(parsed.invocation);
    EXPECT_EQ(parsed.exit_status, 0);
    EXPECT_TRUE(parsed.errors.empty());
    EXPECT_NE(parsed.out.find("Usage: smolvm"), std::string::npos);
  }
}

}  // namespace
}  // namespace smolvm

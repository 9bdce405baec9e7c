#include "toml/parse.h"

#include <gtest/gtest.h>

namespace smol::toml_text {
namespace {

TEST(Toml, OrdinaryText) {
  const auto table = parse("a = 1\n[\"b\"]\nc = [\"é\", '''x\n''']  # é\n", "f");
  ASSERT_TRUE(table);
  EXPECT_EQ((*table)["a"].value<int>(), 1);
  EXPECT_EQ((*table)["b"]["c"][0].value<std::string>(), "é");
}

TEST(Toml, AnErrorHasItsPlace) {
  const auto wrong = parse("a = 1\nb = \n", "f");
  ASSERT_FALSE(wrong);
  EXPECT_EQ(wrong.error().begin.line, 2u);
}

TEST(Toml, WhatTheLibraryOnlyAsserts) {
  for (const std::string_view text : {"[{", "[\r", "[[]]", "é = 1", "[é]", "a = [1,}", "a = 1 é"})
    EXPECT_FALSE(parse(text, "f")) << text;
}

TEST(Toml, WhatTheLibraryOnlyAssertsHasItsPlace) {
  const auto place = [](std::string_view text) {
    const auto wrong = parse(text, "f");
    return wrong ? std::string("none")
                 : std::to_string(wrong.error().begin.line) + ":" +
                       std::to_string(wrong.error().begin.column);
  };
  EXPECT_EQ(place("[{"), "1:2");
  EXPECT_EQ(place("a = 1\n\n# é\n  [{ more\nb = 2\n"), "4:4");
  for (const std::string_view text : {"[\r", "[[]]", "é = 1", "[é]", "a = [1,}", "a = 1 é"})
    EXPECT_TRUE(place(text).starts_with("1:") && place(text) != "1:0") << text << place(text);
}

}  // namespace
}  // namespace smol::toml_text

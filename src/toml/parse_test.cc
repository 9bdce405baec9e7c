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

}  // namespace
}  // namespace smol::toml_text

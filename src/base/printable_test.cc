#include "base/printable.h"

#include <gtest/gtest.h>

namespace smol::base {
namespace {

TEST(Printable, TextStays) {
  for (const std::string text : {"", "a\tb\nc", "caf\xc3\xa9", "\xc2\xa0", "\xff\xc2", "~ "})
    EXPECT_EQ(printable(text), text);
}

TEST(Printable, NothingCommandsTheTerminal) {
  EXPECT_EQ(printable("\x1b[2Jx\r\x7f\a"), "\\x1b[2Jx\\x0d\\x7f\\x07");
  EXPECT_EQ(printable(std::string_view("a\0b", 3)), "a\\x00b");
  EXPECT_EQ(printable("\xc2\x9b"
                      "31m"),
            "\\xc2\\x9b31m");
}

TEST(Printable, AnErrorIsOneLine) {
  testing::internal::CaptureStderr();
  print_error(Error("outer").because_of(Error("in\x1bner")));
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "Error: outer: in\\x1bner\n");
}

}  // namespace
}  // namespace smol::base

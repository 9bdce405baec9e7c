// A capsule's verbs. Each gives the exit status; an Error is printed by main.
#pragma once

#include "arguments.h"
#include "contents.h"

namespace capsule {

Result<int> run_foreground(const Arguments& arguments, const Contents& contents);
Result<int> start(const Arguments& arguments, const Contents& contents);
// exec and shell.
Result<int> execute(const Arguments& arguments, const Contents& contents);
Result<int> stop(const Arguments& arguments, const Contents& contents);
Result<int> status(const Arguments& arguments, const Contents& contents);
Result<int> show_info(const Arguments& arguments, const Contents& contents);

}  // namespace capsule

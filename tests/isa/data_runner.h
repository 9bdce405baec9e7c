// Instruction tests as text (data/*.isa): a name, code bytes, state in, state out.
//
//   test add sets carry            starts a test
//   bits 32                        32-bit code (default 64)
//   code 48 01 d8                  machine code, hexadecimal; may be repeated
//   in rax=ffffffffffffffff        registers before (rax..r15, rflags by names: flags=cf,zf;
//   xmm0..15 and st0..7 as one
//                                  hexadecimal number; fcw, fsw, tags, mxcsr); what is not named is
//                                  0 or the reset value
//   memory 20000040 = 11 22        bytes at an address of the data pages before; the rest is 0
//   out rax=0 flags=cf,pf,af,zf    registers after; only what is named is compared; flags are all
//   six arithmetic ones ignore af                      flags that are undefined then expect
//   20000040 = 22 11        bytes after fault 14 error=6 address=1000  the exception that ends it
//   (default: 3, the filler behind the code)
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "machine/state.h"

namespace smol::isa {

struct DataTest {
  std::string name;
  std::string place;  // file:line
  std::vector<u8> code;
  UserState in;
  std::vector<std::pair<std::string, std::string>> out;  // register, value as text
  std::vector<std::pair<u64, std::vector<u8>>> memory, expect;
  u64 ignored_flags = 0;
  u8 vector = 3;
  bool checks_error = false, checks_address = false;
  u32 error_code = 0;
  u64 address = 0;
};

Result<std::vector<DataTest>> load_data_tests(const std::string& path);
// What the outcome (and the data pages after it) have otherwise than the test says; empty when
// nothing.
std::string failures(const DataTest& test, const Outcome& outcome, const u8* data);
// Sets a register by its name; error for an unknown name or a bad number.
Result<> set_register(UserState& state, std::string_view name, std::string_view value);
// The value of a register as text, in the form that set_register takes (flags: sorted names).
Result<std::string> get_register(const UserState& state, std::string_view name);
// Brings a value to get_register's form.
Result<std::string> normalize(std::string_view name, std::string_view value);

}  // namespace smol::isa

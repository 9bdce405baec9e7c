/* A failure's text: the first reason is the one that counts. */
#include <stdarg.h>
#include <stdio.h>

#include "guest/init/init.h"

bool fail(struct failure* failure, const char* format, ...) {
  if (failure->text[0] == '\0') {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(failure->text, sizeof failure->text, format, arguments);
    va_end(arguments);
  }
  return false;
}

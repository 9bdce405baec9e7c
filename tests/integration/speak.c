/* Says what it was given, for capsules in tests: arguments, a variable, its directory and user;
 * copies its input with -i, and ends with the status that `exit=N` names. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char** argv) {
  char folder[4096];
  const char* word = getenv("WORD");
  int status = 0;
  for (int i = 1; i < argc; i++) {
    printf("argument %s\n", argv[i]);
    if (strncmp(argv[i], "exit=", 5) == 0) status = atoi(argv[i] + 5);
    if (strcmp(argv[i], "signal") == 0) raise(9);
    if (strcmp(argv[i], "wait") == 0) {
      fflush(stdout);
      pause();
    }
    if (strcmp(argv[i], "-i") == 0) {
      char line[4096];
      while (fgets(line, sizeof line, stdin) != NULL) printf("input %s", line);
    }
    if (strncmp(argv[i], "write=", 6) == 0) {
      FILE* file = fopen(argv[i] + 6, "w");
      printf("write %s\n",
             file != NULL && fputs("x", file) >= 0 && fclose(file) == 0 ? "good" : "bad");
    }
  }
  printf("word %s\n", word != NULL ? word : "none");
  printf("folder %s user %d\n", getcwd(folder, sizeof folder), (int)getuid());
  return status;
}

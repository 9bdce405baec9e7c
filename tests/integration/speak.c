/* Says what it was given, for capsules in tests: arguments, a variable, its directory and user;
 * copies its input with -i, and ends with the status that `exit=N` names. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int caught;
static void on_signal(int number) { caught = number; }

static void put_number(const char* folder, const char* name, int number) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE* file = fopen(path, "w");
  if (file == NULL || fprintf(file, "%d", number) < 0 || fclose(file) != 0) exit(111);
}

/* Makes FOLDER/ready, and FOLDER/caught with the number of the first signal. */
static void catch_signals(const char* folder) {
  sigset_t all, none;
  sigfillset(&all);
  sigemptyset(&none);
  sigprocmask(SIG_BLOCK, &all, NULL);
  signal(SIGUSR1, on_signal);
  signal(SIGTERM, on_signal);
  put_number(folder, "ready", 0);
  sigsuspend(&none);
  put_number(folder, "caught", caught);
}

/* Reads a whole file; "bad" where that fails. */
static const char* sum(const char* path) {
  static char bytes[65536];
  FILE* file = fopen(path, "r");
  if (file == NULL) return "bad";
  while (fread(bytes, 1, sizeof bytes, file) > 0) {
  }
  const char* const result = ferror(file) ? "bad" : "good";
  fclose(file);
  return result;
}

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
    if (strncmp(argv[i], "catch=", 6) == 0) catch_signals(argv[i] + 6);
    if (strncmp(argv[i], "exists=", 7) == 0 && access(argv[i] + 7, F_OK) != 0) status = 4;
    if (strncmp(argv[i], "sum=", 4) == 0) printf("sum %s\n", sum(argv[i] + 4));
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

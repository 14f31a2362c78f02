// Runs the case named on the command line; "list" names them all.
#include <initializer_list>

#include "cases.h"

int main(int count, char** args) {
  for (const Case* cases : {memory_cases, stream_cases, kernel_cases, capture_cases}) {
    for (const Case* c = cases; c->name; c++) {
      if (count == 2 && !strcmp(args[1], "list")) puts(c->name);
      if (count == 2 && !strcmp(args[1], c->name)) return c->run(), 0;
    }
  }
  return count == 2 && !strcmp(args[1], "list") ? 0 : 2;
}

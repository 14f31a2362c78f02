// planted SEED…: runs every planted fault and its twin under each seed, and
// prints a line for each: name, bad or good, seed, the fault.
#include <stdio.h>
#include <stdlib.h>

#include "planted.h"

int main(int argc, char** argv) {
  for (planted* p = planted::first; p; p = p->next)
    for (int i = 1; i < argc; i++)
      for (uint64_t bad : {1, 0}) {
        vg_sim::options o;
        o.seed = strtoull(argv[i], nullptr, 0);
        std::string fault = p->run(o, bad);
        for (char& c : fault)
          if (c == '\n') c = '|';
        printf("%s\t%s\t%s\t%s\n", p->name, bad ? "bad" : "good", argv[i], fault.c_str());
        fflush(stdout);
      }
}

// loader OBJECT1 OBJECT2: a program without kernels that loads kernel objects.
#include <vg_sim_host.h>

#include <stdio.h>
#include <string.h>
#include <thread>
#include <vector>

static int wrong = 0;
static void expect(bool ok, const std::string& what) {
  if (!ok && ++wrong) printf("%s\n", what.c_str());
}

int main(int, char** argv) {
  std::string error;
  expect(!vg_sim::find("value"), "a kernel before any object is loaded");
  expect(!vg_sim::load("/no/such.so", &error) && error != "", "loads a file that is not there");
  expect(!vg_sim::load("libm.so.6", &error) && error.find("not a kernel object") != std::string::npos, "loads libm: " + error);
  vg_sim::library* l[2];
  for (int i = 0; i < 2; i++) {
    l[i] = vg_sim::load(argv[1 + i], &error);
    if (!l[i]) return printf("%s\n", error.c_str()), 1;
  }
  const vg_sim::kernel* k = vg_sim::find(l[0], "other");
  expect(k && !strcmp(vg_sim::name(k), "other") && vg_sim::max_threads(k) == 96 && vg_sim::param_count(k) == 1, "description of a kernel");
  expect(vg_sim::checked(k) && vg_sim::find("value") == vg_sim::find(l[0], "value"), "kernels by name");
  expect(!vg_sim::find(l[0], "valu"), "a kernel that is not there");

  float* y = (float*)vg_sim::alloc(256, "y");
  for (int i = 0; i < 2; i++) {
    expect(vg_sim::run(vg_sim::find(l[i], "value"), 1, 64, 0, {}, y, uint64_t(0)) == "", "a fault");
    for (int t = 0; t < 64; t++) expect(y[t] == (i + 1) * 11 + t, "object " + std::to_string(i + 1) + ": " + std::to_string(y[t]));
    const std::string fault = vg_sim::run(vg_sim::find(l[i], "value"), 1, 64, 0, {}, y, uint64_t(1));
    expect(fault.find("out of bounds: writes 4 bytes at y+256 (256 bytes long)") != std::string::npos, fault);
    expect(fault.find("module.cc:10") != std::string::npos, "no source line: " + fault);
  }
  // Launches from several OS threads wait for each other.
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; i++)
    threads.emplace_back([&, i] {
      for (int n = 0; n < 20; n++) {
        float* mine = (float*)vg_sim::alloc(256, "mine");
        expect(vg_sim::run(vg_sim::find(l[i % 2], "value"), 1, 64, 0, {}, mine, uint64_t(0)) == "" && mine[5] == (i % 2 + 1) * 11 + 5, "threads");
        vg_sim::free(mine);
      }
    });
  for (std::thread& t : threads) t.join();
  vg_sim::unload(l[0]);
  expect(!vg_sim::find("valu") && vg_sim::find("value") == vg_sim::find(l[1], "value"), "kernels after unload");
  return wrong != 0;
}

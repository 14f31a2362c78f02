// Calls NVRTC, which is loaded when this program runs:
//
//   vitgen_nvrtc LIBRARY version
//   vitgen_nvrtc LIBRARY ptx|cubin SOURCE OUTPUT OPTION…
//
// What the compiler says goes to standard output. Exit status: 0; 1 if the
// source does not compile; 2 if anything else fails.
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void fail(const char* what, const char* why) {
  printf("%s: %s\n", what, why);
  exit(2);
}

static void* library;
static void* symbol(const char* name) {
  void* p = dlsym(library, name);
  if (!p) fail(name, "not in this NVRTC");
  return p;
}

// Calls a function of NVRTC that returns 0 when all is well.
#define CALL(name, types, ...)                                               \
  do {                                                                       \
    int err = ((int (*) types)symbol(name))(__VA_ARGS__);                    \
    if (err) fail(name, ((const char* (*)(int))symbol("nvrtcGetErrorString"))(err)); \
  } while (0)

static char* read_file(const char* name) {
  FILE* f = fopen(name, "rb");
  if (!f || fseek(f, 0, SEEK_END)) fail(name, "cannot be read");
  long size = ftell(f);
  char* text = size < 0 ? NULL : malloc((size_t)size + 1);
  if (!text) fail(name, "cannot be read");
  rewind(f);
  if (fread(text, 1, (size_t)size, f) != (size_t)size) fail(name, "cannot be read");
  text[size] = 0;
  fclose(f);
  return text;
}

static void write_output(void* program, const char* kind, const char* name) {
  const int cubin = strcmp(kind, "cubin") == 0;
  size_t size;
  CALL(cubin ? "nvrtcGetCUBINSize" : "nvrtcGetPTXSize", (void*, size_t*), program, &size);
  char* data = malloc(size + 1);
  if (!data) fail(name, "no memory");
  CALL(cubin ? "nvrtcGetCUBIN" : "nvrtcGetPTX", (void*, char*), program, data);
  if (!cubin && size > 0) size--;  // the terminating zero
  FILE* f = fopen(name, "wb");
  if (!f || fwrite(data, 1, size, f) != size || fclose(f)) fail(name, "cannot be written");
}

int main(int argc, char** argv) {
  if (argc != 3 && argc < 5) fail("usage", "LIBRARY version | LIBRARY ptx|cubin SOURCE OUTPUT OPTION...");
  if (!(library = dlopen(argv[1], RTLD_NOW))) fail("dlopen", dlerror());
  if (argc == 3) {
    int major, minor;
    CALL("nvrtcVersion", (int*, int*), &major, &minor);
    printf("%d.%d\n", major, minor);
    return 0;
  }
  void* program = NULL;
  CALL("nvrtcCreateProgram", (void**, const char*, const char*, int, const char**, const char**),
       &program, read_file(argv[3]), argv[3], 0, NULL, NULL);
  int err = ((int (*)(void*, int, const char**))symbol("nvrtcCompileProgram"))(program, argc - 5, (const char**)argv + 5);
  size_t size;
  CALL("nvrtcGetProgramLogSize", (void*, size_t*), program, &size);
  char* log = calloc(size + 1, 1);
  if (!log) fail("log", "no memory");
  CALL("nvrtcGetProgramLog", (void*, char*), program, log);
  puts(log);
  if (err) {
    if (!*log) puts(((const char* (*)(int))symbol("nvrtcGetErrorString"))(err));
    return 1;
  }
  write_output(program, argv[2], argv[4]);
  return 0;
}

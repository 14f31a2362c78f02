// Modules. The "binary" of the simulated device is a shared object made of a
// kernel file (sim.BuildKernels), whose bytes are loaded as a real driver loads
// those of a cubin.
#include <elf.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <vg_sim_host.h>

#include "entry.h"

namespace vg_driver {
namespace {

#if defined(__x86_64__)
constexpr int host_machine = EM_X86_64;
#elif defined(__aarch64__)
constexpr int host_machine = EM_AARCH64;
#endif
constexpr int cuda_machine = 190;  // EM_CUDA
constexpr const char* wanted = "the simulated device runs shared objects made of a kernels.cu by g++ -DVG_SIM (sim.BuildKernels)";

// Where cuModuleLoadDataEx may write what it has to say.
struct Log {
  char* text = nullptr;
  size_t* size = nullptr;  // in: room; out: bytes written
  void write(const std::string& message) const {
    if (!text || !size || *size == 0) return;
    *size = (size_t)snprintf(text, *size, "%s", message.c_str()) < *size ? message.size() + 1 : *size;
  }
};

// A size comes in the option's value itself, which is also where it goes.
Log find_log(unsigned count, const int* options, void** values, int buffer, int size) {
  Log log;
  for (unsigned i = 0; i < count; i++) {
    if (options[i] == buffer) log.text = (char*)values[i];
    if (options[i] == size) log.size = (size_t*)&values[i];
  }
  if (log.size) *log.size &= 0xffffffffu;  // an unsigned int is what is passed
  return log;
}

// The length of an ELF image, which nobody tells: its last part ends there.
size_t elf_bytes(const char* image) {
  Elf64_Ehdr header;
  memcpy(&header, image, sizeof header);
  size_t end = header.e_shoff + (size_t)header.e_shnum * header.e_shentsize;
  for (int i = 0; i < header.e_phnum; i++) {
    Elf64_Phdr part;
    memcpy(&part, image + header.e_phoff + (size_t)i * header.e_phentsize, sizeof part);
    end = std::max<size_t>(end, part.p_offset + part.p_filesz);
  }
  for (int i = 0; i < header.e_shnum; i++) {
    Elf64_Shdr section;
    memcpy(&section, image + header.e_shoff + (size_t)i * header.e_shentsize, sizeof section);
    if (section.sh_type != SHT_NOBITS) end = std::max<size_t>(end, section.sh_offset + section.sh_size);
  }
  return end;
}

// The same of a file, whose length is known; 0 if the tables lie outside it.
size_t elf_end(const std::string& file) {
  Elf64_Ehdr header;
  memcpy(&header, file.data(), sizeof header);
  const size_t tables = std::max(header.e_shoff + (size_t)header.e_shnum * header.e_shentsize,
                                 header.e_phoff + (size_t)header.e_phnum * header.e_phentsize);
  return tables <= file.size() ? elf_bytes(file.data()) : 0;
}

struct Rejected {
  CUresult code;
  std::string why;
};

// Throws Rejected for anything but a shared object of this machine.
void check_image(const char* image) {
  if (memcmp(image, ELFMAG, SELFMAG) != 0) {
    uint32_t magic;
    memcpy(&magic, image, 4);
    if (magic == 0xba55ed50 || magic == 0x466243b1) throw Rejected{CUDA_ERROR_NO_BINARY_FOR_GPU, "a fat binary of CUDA"};
    const std::string text(image, strnlen(image, 4096));
    if (text.find(".version") != std::string::npos) throw Rejected{CUDA_ERROR_NO_BINARY_FOR_GPU, "PTX"};
    throw Rejected{CUDA_ERROR_INVALID_IMAGE, "neither ELF nor PTX"};
  }
  if (image[EI_CLASS] != ELFCLASS64) throw Rejected{CUDA_ERROR_INVALID_IMAGE, "an ELF image of 32 bits"};
  Elf64_Ehdr header;
  memcpy(&header, image, sizeof header);
  if (header.e_machine == cuda_machine) throw Rejected{CUDA_ERROR_NO_BINARY_FOR_GPU, "a cubin"};
  if (header.e_machine != host_machine) throw Rejected{CUDA_ERROR_INVALID_IMAGE, "an ELF image for another processor"};
  if (header.e_type != ET_DYN) throw Rejected{CUDA_ERROR_INVALID_IMAGE, "an ELF image that is no shared object"};
}

struct Loaded {
  std::string bytes;
  vg_sim::library* library;
};

// Opens an image, or finds it if it is open already. What is open stays so:
// unloading code that a debugger or a profile refers to helps nobody.
vg_sim::library* open_image(const char* image) {
  static std::vector<Loaded> open;
  const std::string bytes(image, elf_bytes(image));
  for (const Loaded& l : open) {
    if (l.bytes == bytes) return l.library;
  }
  const int file = memfd_create("vitgen-kernels", MFD_CLOEXEC);
  check(file >= 0, CUDA_ERROR_OPERATING_SYSTEM, "memfd_create");
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t n = write(file, bytes.data() + done, bytes.size() - done);
    check(n > 0, CUDA_ERROR_OPERATING_SYSTEM, "write");
    done += (size_t)n;
  }
  // The file stays open, so that no two images get the same name.
  std::string error;
  vg_sim::library* library = vg_sim::load(("/proc/self/fd/" + std::to_string(file)).c_str(), &error);
  if (!library) throw Rejected{CUDA_ERROR_INVALID_IMAGE, error};
  open.push_back({bytes, library});
  return library;
}

CUmodule load(const std::shared_ptr<Context>& context, const void* image, const Log& log) {
  check(image != nullptr, CUDA_ERROR_INVALID_VALUE, "null");
  forbid_in_capture();
  try {
    check_image((const char*)image);
    const Chip& chip = *driver().config.chip;
    if (chip.major < 8) {
      throw Rejected{CUDA_ERROR_NO_BINARY_FOR_GPU, "the kernels need compute capability 8.0, and the device has " +
                                                       std::to_string(chip.major) + "." + std::to_string(chip.minor)};
    }
    auto module = std::make_shared<Module>();
    module->context = context;
    module->library = open_image((const char*)image);
    return module->handle = driver().modules.add(module);
  } catch (const Rejected& r) {
    const std::string text = r.why + "; " + wanted;
    log.write(text);
    fail(r.code, text);
  }
}

std::shared_ptr<Function> get_function(const std::shared_ptr<Module>& module, const char* name) {
  std::shared_ptr<Function>& function = module->functions[name];
  if (function) return function;
  const vg_sim::kernel* kernel = vg_sim::find(module->library, name);
  if (!kernel) {
    module->functions.erase(name);
    fail(CUDA_ERROR_NOT_FOUND, std::string("no kernel ") + name + " in the module");
  }
  function = std::make_shared<Function>();
  function->name = name;
  function->kernel = kernel;
  function->module = module->handle;
  function->handle = driver().functions.add(function);
  return function;
}

std::string read_file(const char* name) {
  FILE* file = fopen(name, "rb");
  check(file != nullptr, CUDA_ERROR_FILE_NOT_FOUND, name);
  std::string bytes;
  char buffer[1 << 16];
  for (size_t n; (n = fread(buffer, 1, sizeof buffer, file)) > 0;) bytes.append(buffer, n);
  fclose(file);
  return bytes;
}

}  // namespace
}  // namespace vg_driver

using namespace vg_driver;
using ContextPtr = std::shared_ptr<Context>;

VG_API CUresult cuModuleLoadDataEx(CUmodule* out, const void* image, unsigned count, int* options, void** values) {
  return entry(__func__, [&](const ContextPtr& context) {
    check(out != nullptr && (count == 0 || (options && values)), CUDA_ERROR_INVALID_VALUE, "null");
    const Log info = find_log(count, options, values, CU_JIT_INFO_LOG_BUFFER, CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES);
    const Log errors = find_log(count, options, values, CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES);
    if (info.size && info.text && *info.size) info.text[0] = 0, *info.size = 0;
    *out = load(context, image, errors);
    if (errors.size && errors.text && *errors.size) errors.text[0] = 0, *errors.size = 0;
  });
}
VG_API CUresult cuModuleLoadData(CUmodule* out, const void* image) {
  return entry(__func__, [&](const ContextPtr& context) {
    check(out != nullptr, CUDA_ERROR_INVALID_VALUE, "null");
    *out = load(context, image, {});
  });
}
VG_API CUresult cuModuleLoadFatBinary(CUmodule* out, const void* image) { return cuModuleLoadData(out, image); }

VG_API CUresult cuModuleLoad(CUmodule* out, const char* name) {
  return entry(__func__, [&](const ContextPtr& context) {
    check(out != nullptr && name != nullptr, CUDA_ERROR_INVALID_VALUE, "null");
    const std::string bytes = read_file(name);
    check(bytes.size() > sizeof(Elf64_Ehdr), CUDA_ERROR_INVALID_IMAGE, "too short");
    const bool elf = memcmp(bytes.data(), ELFMAG, SELFMAG) == 0;
    check(!elf || (elf_end(bytes) > 0 && elf_end(bytes) <= bytes.size()), CUDA_ERROR_INVALID_IMAGE, "the file is cut off");
    *out = load(context, bytes.c_str(), {});
  });
}

VG_API CUresult cuModuleUnload(CUmodule handle) {
  return entry(__func__, [&](const ContextPtr&) {
    const auto module = driver().modules.get(handle);
    for (const auto& [name, function] : module->functions) driver().functions.remove(function->handle);
    driver().modules.remove(handle);
  });
}

VG_API CUresult cuModuleGetFunction(CUfunction* out, CUmodule handle, const char* name) {
  return entry(__func__, [&](const ContextPtr&) {
    check(out != nullptr && name != nullptr, CUDA_ERROR_INVALID_VALUE, "null");
    *out = get_function(driver().modules.get(handle), name)->handle;
  });
}

// Kernels of this library have no variables at file scope.
VG_API CUresult cuModuleGetGlobal_v2(CUdeviceptr*, size_t*, CUmodule handle, const char*) {
  return entry(__func__, [&](const ContextPtr&) {
    driver().modules.get(handle);
    return CUDA_ERROR_NOT_FOUND;
  });
}

// 1: eager.
VG_API CUresult cuModuleGetLoadingMode(int* mode) {
  return entry(__func__, [&] {
    check(mode != nullptr, CUDA_ERROR_INVALID_VALUE, "null");
    *mode = 1;
  });
}

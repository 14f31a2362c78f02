//go:build cuda

package cuda

/*
#cgo LDFLAGS: -lcuda -ldl -lpthread
#include <cuda.h>
#include <stdlib.h>

// In runtime/cuda/link's library; a program that is linked with the driver
// itself has none and needs none.
extern const char* vg_cuda_driver_error(void) __attribute__((weak));
static const char* driver_error(void) { return vg_cuda_driver_error ? vg_cuda_driver_error() : NULL; }

// A new handle, as an integer that Go's vet has no objections to. Inputs are
// such integers too.
typedef struct { CUresult result; uintptr_t handle; } made;

static made load_module(const void* image, char* log, unsigned int size) {
  CUmodule module = NULL;
  CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
  void* values[] = {log, (void*)(uintptr_t)size};
  CUresult r = cuModuleLoadDataEx(&module, image, 2, options, values);
  return (made){r, (uintptr_t)module};
}
static CUresult unload_module(uintptr_t module) { return cuModuleUnload((CUmodule)module); }
static CUresult allow_shared(uintptr_t function, int bytes) {
  return cuFuncSetAttribute((CUfunction)function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, bytes);
}

// Only this thread's calls can disturb a capture, or be disturbed by it.
static CUresult begin_capture(uintptr_t stream) {
  return cuStreamBeginCapture((CUstream)stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
}
static made end_capture(uintptr_t stream) {
  CUgraph graph = NULL;
  CUresult r = cuStreamEndCapture((CUstream)stream, &graph);
  return (made){r, (uintptr_t)graph};
}
// Destroys the graph.
static made instantiate(uintptr_t graph) {
  CUgraphExec exec = NULL;
  CUresult r = cuGraphInstantiateWithFlags(&exec, (CUgraph)graph, 0);
  cuGraphDestroy((CUgraph)graph);
  return (made){r, (uintptr_t)exec};
}
static CUresult drop_graph(uintptr_t graph) { return cuGraphDestroy((CUgraph)graph); }
static CUresult launch_graph(uintptr_t exec, uintptr_t stream) { return cuGraphLaunch((CUgraphExec)exec, (CUstream)stream); }
static CUresult destroy_exec(uintptr_t exec) { return cuGraphExecDestroy((CUgraphExec)exec); }

static made create_event(unsigned int flags) {
  CUevent event = NULL;
  CUresult r = cuEventCreate(&event, flags);
  return (made){r, (uintptr_t)event};
}
static CUresult destroy_event(uintptr_t event) { return cuEventDestroy((CUevent)event); }
static CUresult record_event(uintptr_t event, uintptr_t stream) { return cuEventRecord((CUevent)event, (CUstream)stream); }
static CUresult wait_event(uintptr_t event) { return cuEventSynchronize((CUevent)event); }
typedef struct { CUresult result; float ms; } elapsed;
static elapsed between(uintptr_t from, uintptr_t to) {
  float ms = 0;
  CUresult r = cuEventElapsedTime(&ms, (CUevent)from, (CUevent)to);
  return (elapsed){r, ms};
}

static const char* error_name(CUresult r) {
  const char* text = NULL;
  return cuGetErrorName(r, &text) == CUDA_SUCCESS ? text : NULL;
}
static const char* error_text(CUresult r) {
  const char* text = NULL;
  return cuGetErrorString(r, &text) == CUDA_SUCCESS ? text : NULL;
}
*/
import "C"

import (
	"fmt"
	"strings"
	"time"
	"unsafe"

	"github.com/mumax/3/cuda/cu"
)

// The rest of the driver, in the manner of package cu: what fails panics with a
// cu.Result. enter and leave (device.go) stand between that and callers.

type (
	event     uintptr
	graphExec uintptr
)

func check(r C.CUresult) {
	if r != C.CUDA_SUCCESS {
		panic(cu.Result(r))
	}
}

func handle(m C.made) uintptr {
	check(m.result)
	return uintptr(m.handle)
}

// driverMissing is why the driver could not be loaded; empty if it was.
func driverMissing() string {
	if text := C.driver_error(); text != nil {
		return C.GoString(text)
	}
	return ""
}

// describe is a result as the driver explains it: "CUDA_ERROR_ILLEGAL_ADDRESS:
// an illegal memory access was encountered".
func describe(r cu.Result) string {
	name, text := r.String(), ""
	if s := C.error_name(C.CUresult(r)); s != nil {
		name = C.GoString(s)
	}
	if s := C.error_text(C.CUresult(r)); s != nil {
		text = ": " + C.GoString(s)
	}
	return name + text
}

// loadModule loads kernels: PTX, or machine code. The error holds what the
// driver's compiler said.
func loadModule(image []byte) (cu.Module, error) {
	image = append(image[:len(image):len(image)], 0) // PTX ends with a zero
	const size = 16 << 10
	log := (*C.char)(C.calloc(1, size))
	defer C.free(unsafe.Pointer(log))
	m := C.load_module(unsafe.Pointer(&image[0]), log, size)
	if m.result == C.CUDA_SUCCESS {
		return cu.Module(m.handle), nil
	}
	said := strings.TrimSpace(C.GoString(log))
	if said != "" {
		said = "\n" + said
	}
	return 0, fmt.Errorf("%s%s", describe(cu.Result(m.result)), said)
}

func unloadModule(m cu.Module) { check(C.unload_module(C.uintptr_t(m))) }

// allowShared lets a function be launched with so much dynamic shared memory;
// without it there are 48 KiB.
func allowShared(f cu.Function, bytes int) { check(C.allow_shared(C.uintptr_t(f), C.int(bytes))) }

// Attribute numbers that cu has no names for.
const maxSharedOptin = cu.DeviceAttribute(C.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)

// capture records what do submits to the stream as a graph, instead of running
// it.
func capture(s cu.Stream, do func()) graphExec {
	check(C.begin_capture(C.uintptr_t(s)))
	capturing := true
	defer func() {
		if capturing { // do has panicked: the stream must not be left like this
			if m := C.end_capture(C.uintptr_t(s)); m.handle != 0 {
				C.drop_graph(m.handle)
			}
		}
	}()
	do()
	capturing = false
	graph := handle(C.end_capture(C.uintptr_t(s)))
	return graphExec(handle(C.instantiate(C.uintptr_t(graph))))
}

func (g graphExec) launch(s cu.Stream) { check(C.launch_graph(C.uintptr_t(g), C.uintptr_t(s))) }
func (g graphExec) destroy()           { check(C.destroy_exec(C.uintptr_t(g))) }

func newEvent() event      { return event(handle(C.create_event(C.CU_EVENT_DISABLE_TIMING))) }
func newTimedEvent() event { return event(handle(C.create_event(C.CU_EVENT_DEFAULT))) }

func (e event) record(s cu.Stream) { check(C.record_event(C.uintptr_t(e), C.uintptr_t(s))) }
func (e event) wait()              { check(C.wait_event(C.uintptr_t(e))) }
func (e event) destroy()           { check(C.destroy_event(C.uintptr_t(e))) }

// since is the time that passed on the device between two events, both done.
func (e event) since(start event) time.Duration {
	t := C.between(C.uintptr_t(start), C.uintptr_t(e))
	check(t.result)
	return time.Duration(float64(t.ms) * 1e6)
}

// Results that end a context: whatever is called afterwards fails too.
var sticky = map[cu.Result]bool{
	C.CUDA_ERROR_ILLEGAL_ADDRESS:       true,
	C.CUDA_ERROR_LAUNCH_TIMEOUT:        true,
	C.CUDA_ERROR_ASSERT:                true,
	C.CUDA_ERROR_HARDWARE_STACK_ERROR:  true,
	C.CUDA_ERROR_ILLEGAL_INSTRUCTION:   true,
	C.CUDA_ERROR_MISALIGNED_ADDRESS:    true,
	C.CUDA_ERROR_INVALID_ADDRESS_SPACE: true,
	C.CUDA_ERROR_INVALID_PC:            true,
	C.CUDA_ERROR_LAUNCH_FAILED:         true,
	C.CUDA_ERROR_ECC_UNCORRECTABLE:     true,
	C.CUDA_ERROR_UNKNOWN:               true,
}

// The part of the CUDA driver API that the simulated driver answers: types and
// numbers as the ABI fixes them, in declarations of our own. Enumerations that
// programs pass are plain ints here, since a caller may pass any value.
#pragma once
#include <stddef.h>
#include <stdint.h>

#define VG_API extern "C" __attribute__((visibility("default")))

typedef unsigned long long CUdeviceptr;
typedef int CUdevice;
typedef struct vg_cuda_context* CUcontext;
typedef struct vg_cuda_module* CUmodule;
typedef struct vg_cuda_function* CUfunction;
typedef struct vg_cuda_stream* CUstream;
typedef struct vg_cuda_event* CUevent;
typedef struct vg_cuda_graph* CUgraph;
typedef struct vg_cuda_graph_exec* CUgraphExec;
typedef struct vg_cuda_node* CUgraphNode;
typedef struct vg_cuda_pool* CUmemoryPool;
typedef void (*CUhostFn)(void*);

// name, number, description
#define VG_CUDA_ERRORS(X)                                                                       \
  X(SUCCESS, 0, "no error")                                                                     \
  X(ERROR_INVALID_VALUE, 1, "invalid argument")                                                 \
  X(ERROR_OUT_OF_MEMORY, 2, "out of memory")                                                    \
  X(ERROR_NOT_INITIALIZED, 3, "initialization error")                                           \
  X(ERROR_DEINITIALIZED, 4, "driver shutting down")                                             \
  X(ERROR_NO_DEVICE, 100, "no CUDA-capable device is detected")                                 \
  X(ERROR_INVALID_DEVICE, 101, "invalid device ordinal")                                        \
  X(ERROR_INVALID_IMAGE, 200, "device kernel image is invalid")                                 \
  X(ERROR_INVALID_CONTEXT, 201, "invalid device context")                                       \
  X(ERROR_NO_BINARY_FOR_GPU, 209, "no kernel image is available for execution on the device")   \
  X(ERROR_UNSUPPORTED_LIMIT, 215, "limit is not supported on this architecture")                \
  X(ERROR_INVALID_PTX, 218, "a PTX JIT compilation failed")                                     \
  X(ERROR_FILE_NOT_FOUND, 301, "file not found")                                                \
  X(ERROR_OPERATING_SYSTEM, 304, "OS call failed or operation not supported on this OS")        \
  X(ERROR_INVALID_HANDLE, 400, "invalid resource handle")                                       \
  X(ERROR_NOT_FOUND, 500, "named symbol not found")                                             \
  X(ERROR_NOT_READY, 600, "device not ready")                                                   \
  X(ERROR_ILLEGAL_ADDRESS, 700, "an illegal memory access was encountered")                     \
  X(ERROR_LAUNCH_OUT_OF_RESOURCES, 701, "too many resources requested for launch")              \
  X(ERROR_PEER_ACCESS_NOT_ENABLED, 705, "peer access has not been enabled")                     \
  X(ERROR_CONTEXT_IS_DESTROYED, 709, "context is destroyed")                                    \
  X(ERROR_HOST_MEMORY_ALREADY_REGISTERED, 712, "part or all of the memory is already mapped")   \
  X(ERROR_HOST_MEMORY_NOT_REGISTERED, 713, "pointer does not correspond to a registered memory region") \
  X(ERROR_MISALIGNED_ADDRESS, 716, "misaligned address")                                        \
  X(ERROR_LAUNCH_FAILED, 719, "unspecified launch failure")                                     \
  X(ERROR_NOT_PERMITTED, 800, "operation not permitted")                                        \
  X(ERROR_NOT_SUPPORTED, 801, "operation not supported")                                        \
  X(ERROR_STREAM_CAPTURE_UNSUPPORTED, 900, "operation not permitted when stream is capturing")  \
  X(ERROR_STREAM_CAPTURE_INVALIDATED, 901, "operation failed due to a previous error during capture") \
  X(ERROR_STREAM_CAPTURE_MERGE, 902, "operation would result in a merge of separate capture sequences") \
  X(ERROR_STREAM_CAPTURE_UNMATCHED, 903, "capture was not ended in the same stream as it began") \
  X(ERROR_STREAM_CAPTURE_UNJOINED, 904, "capturing stream has unjoined work")                   \
  X(ERROR_STREAM_CAPTURE_ISOLATION, 905, "dependency created on uncaptured work in another stream") \
  X(ERROR_STREAM_CAPTURE_IMPLICIT, 906, "operation would make the legacy stream depend on a capturing blocking stream") \
  X(ERROR_CAPTURED_EVENT, 907, "operation not permitted on an event last recorded in a capturing stream") \
  X(ERROR_STREAM_CAPTURE_WRONG_THREAD, 908, "attempt to terminate a thread-local capture sequence from another thread") \
  X(ERROR_UNKNOWN, 999, "unknown error")

typedef enum CUresult {
#define VG_ERROR(name, number, text) CUDA_##name = number,
  VG_CUDA_ERRORS(VG_ERROR)
#undef VG_ERROR
} CUresult;

enum {
  CU_CTX_FLAGS_MASK = 0xff,
  CU_STREAM_NON_BLOCKING = 1,
  CU_EVENT_DISABLE_TIMING = 2,
  CU_EVENT_FLAGS_MASK = 7,
  CU_EVENT_RECORD_EXTERNAL = 1,
  CU_MEMHOSTALLOC_FLAGS_MASK = 7,
};
#define CU_STREAM_LEGACY ((CUstream)0x1)
#define CU_STREAM_PER_THREAD ((CUstream)0x2)

enum { CU_CAPTURE_GLOBAL = 0, CU_CAPTURE_THREAD_LOCAL = 1, CU_CAPTURE_RELAXED = 2 };
enum { CU_CAPTURE_NONE = 0, CU_CAPTURE_ACTIVE = 1, CU_CAPTURE_INVALIDATED = 2 };

enum {
  CU_NODE_KERNEL = 0,
  CU_NODE_MEMCPY = 1,
  CU_NODE_MEMSET = 2,
  CU_NODE_HOST = 3,
  CU_NODE_EMPTY = 5,
  CU_NODE_EVENT_RECORD = 7,
};

enum {
  CU_FUNC_MAX_THREADS_PER_BLOCK = 0,
  CU_FUNC_SHARED_SIZE_BYTES = 1,
  CU_FUNC_CONST_SIZE_BYTES = 2,
  CU_FUNC_LOCAL_SIZE_BYTES = 3,
  CU_FUNC_NUM_REGS = 4,
  CU_FUNC_PTX_VERSION = 5,
  CU_FUNC_BINARY_VERSION = 6,
  CU_FUNC_CACHE_MODE_CA = 7,
  CU_FUNC_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8,
  CU_FUNC_PREFERRED_SHARED_MEMORY_CARVEOUT = 9,
};

enum {
  CU_JIT_INFO_LOG_BUFFER = 3,
  CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES = 4,
  CU_JIT_ERROR_LOG_BUFFER = 5,
  CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES = 6,
};

enum {
  CU_POINTER_CONTEXT = 1,
  CU_POINTER_MEMORY_TYPE = 2,
  CU_POINTER_DEVICE_POINTER = 3,
  CU_POINTER_HOST_POINTER = 4,
  CU_POINTER_DEVICE_ORDINAL = 9,
  CU_POINTER_RANGE_START_ADDR = 11,
  CU_POINTER_RANGE_SIZE = 12,
};
enum { CU_MEMORY_HOST = 1, CU_MEMORY_DEVICE = 2 };

enum { CU_PROC_SUCCESS = 0, CU_PROC_NOT_FOUND = 1, CU_PROC_VERSION_NOT_SUFFICIENT = 2 };

typedef struct CUuuid {
  char bytes[16];
} CUuuid;

typedef struct CUlaunchConfig {
  unsigned int gridDimX, gridDimY, gridDimZ;
  unsigned int blockDimX, blockDimY, blockDimZ;
  unsigned int sharedMemBytes;
  CUstream hStream;
  void* attrs;
  unsigned int numAttrs;
} CUlaunchConfig;

typedef struct CUDA_KERNEL_NODE_PARAMS_v2 {
  CUfunction func;
  unsigned int gridDimX, gridDimY, gridDimZ;
  unsigned int blockDimX, blockDimY, blockDimZ;
  unsigned int sharedMemBytes;
  void** kernelParams;
  void** extra;
  void* kern;
  CUcontext ctx;
} CUDA_KERNEL_NODE_PARAMS_v2;
